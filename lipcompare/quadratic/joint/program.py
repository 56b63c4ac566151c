"""Data of the joint program: ``max w' C w`` over ``w = (c, v)``, ``|c|_2 <= 1``, gates as quadratic constraints.

``c`` are the weights of the rows and ``v`` the coordinates of the undecided gates. Without a constant everything is
linear: ``K_i`` and the entries of the input gradient are linear maps of ``w``, ``C = G G'`` with ``G`` those of the
entries, and ``v_i (K_i w - v_i) >= 0`` says what a gate does. The dual of the relaxation is

    min  rho    s.t.   S = rho I_c + sum_i theta_i A_i - C   psd ,   A_i = e_i k_i' + k_i e_i', k_i = (e_i - K_i) / 2 ,

and any ``theta >= 0`` with ``S`` psd proves that the square of the largest singular value is at most ``rho``. It is the
program of LipSDP (Fazlyab et al. 2019) with local slopes, read from the outputs to the inputs: its order is the number
of outputs and undecided gates, whatever the number of inputs.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.quadratic.coordinates import Coordinates, GateMaps
from lipcompare.quadratic.program import Cuts, SdpData, squares_error
from lipcompare.rounding import raised


@dataclasses.dataclass(frozen=True, eq=False)
class JointData:
    """A batch of joint programs in scaled coordinates ``|w_i| <= 1``.

    Attributes:
        rows: number of the ``c``, which come first.
        gates: (problems, n, n) column i the ``K_i`` of a gate's coordinate; 0 for the ``c``.
        cost: (problems, n, n) ``C`` over ``scale``.
        mask: (problems, n) coordinates that exist.
        ranges: coordinates of one activation node each, from the output to the input.
        scale: (problems,) what the objective is divided by.
        slack: (problems,) what rounding may add to the objective, in scaled units.
        gate_slack: (problems, n) error of each ``K_i``.
        nothing: (problems,) whether the Jacobian is exactly 0, which products that underflow do not show.
        coordinates: of the gates, as the pull-back names them.
    """

    rows: int
    gates: Tensor
    cost: Tensor
    mask: Tensor
    ranges: tuple[tuple[int, int], ...]
    scale: Tensor
    slack: Tensor
    gate_slack: Tensor
    nothing: Tensor
    coordinates: Coordinates

    @property
    def size(self) -> int:
        return int(self.mask.shape[-1])

    @classmethod
    def of(cls, maps: GateMaps, nothing: Tensor) -> JointData:
        """The programs of all examples; ``nothing`` is as in the class."""
        examples, rows, _ = maps.entry_constant.shape
        # |K_i(c, v)| <= |c|_2 times the l2 norm of the rows' reaches; the same of the gradient's errors in l1.
        reach = raised(torch.linalg.vector_norm(maps.reach[:, :, 1:], dim=1), rows)
        gates = reach.shape[-1]
        radius = torch.cat([reach.new_ones(examples, rows), reach], -1)
        mask = radius > 0
        safe = torch.where(mask, radius, 1.0)
        linear = radius.new_zeros(examples, rows + gates, rows + gates)
        linear[:, :rows, rows:] = maps.gate_constant[:, :, 1:]
        linear[:, rows:, rows:] = maps.gate_linear[:, 1:, 1:]
        linear = linear * radius.unsqueeze(-1) / safe.unsqueeze(-2) * mask.unsqueeze(-2)
        entries = torch.cat([maps.entry_constant, maps.entry_linear[:, 1:]], 1) * radius.unsqueeze(-1)
        cost = entries @ entries.mT
        # A scale, so any will do; of squares next to underflow the root says that nothing is known (root_above).
        scale = cost.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=1e-290)
        return cls(
            rows=rows,
            gates=linear,
            cost=cost / scale.view(-1, 1, 1),
            mask=mask,
            ranges=tuple((start + rows - 1, stop + rows - 1) for start, stop in maps.coordinates.ranges),
            scale=scale,
            slack=squares_error(entries, (maps.entry_error + maps.entry_drift).sum(1)) / scale,
            gate_slack=torch.cat([radius.new_zeros(examples, rows), maps.gate_error[:, :, 1:].sum(1)], -1)
            / safe
            * mask,
            nothing=nothing,
            coordinates=maps.coordinates,
        )

    @property
    def columns(self) -> Tensor:
        """The ``k_i`` as columns (problems, n, n); ``e_i / 2`` for the ``c``."""
        columns = -0.5 * self.gates
        columns.diagonal(dim1=-2, dim2=-1).add_(0.5 * self.mask)
        return columns

    def certifiable(self) -> SdpData:
        """The same in the terms of :mod:`lipcompare.quadratic.solver.certificate`.

        With the one multiplier ``rho`` for every ``c``, the dual objective is ``sum_c rho / rows = rho``.
        """
        problems, n = self.mask.shape
        right = torch.zeros_like(self.gate_slack)
        right[:, : self.rows] = 1 / self.rows
        none = torch.zeros(problems, 0, dtype=torch.bool, device=right.device)
        columns, limit = self.columns, self.mask.to(right)
        names = self.coordinates
        pad = (self.rows - 1, 0)
        index = torch.arange(problems, device=right.device)
        return SdpData(
            columns=columns,
            mask=self.mask,
            right=right,
            cost=self.cost,
            entries=self.cost.new_zeros(problems, n, 0),
            entry_mask=none,
            limit=limit,
            trace=limit.sum(-1),
            scale=self.scale,
            offset=torch.zeros_like(self.scale),
            radius=limit,
            slack=self.slack,
            gate_slack=self.gate_slack,
            example=index,
            row=torch.zeros_like(index),
            entry=none.to(torch.int64),
            cuts=Cuts.none(columns),
            coordinates=Coordinates(
                torch.nn.functional.pad(names.node, pad, value=-1),
                torch.nn.functional.pad(names.neuron, pad),
                torch.nn.functional.pad(names.present, pad, value=True),
            ),
        )


def slack_matrix(data: JointData, rho: Tensor, theta: Tensor) -> Tensor:
    """``S`` (problems, n, n) for ``rho`` (problems,) and ``theta`` (problems, n), of which those of the ``c`` are not
    read; 1 on the diagonal of coordinates that a problem does not have."""
    weights = theta.clone()
    weights[:, : data.rows] = rho.unsqueeze(-1)
    half = data.columns * weights.unsqueeze(-2)
    slack = half + half.mT - data.cost
    slack.diagonal(dim1=-2, dim2=-1).add_((~data.mask).to(slack))
    return slack
