"""The quadratic-gate semidefinite bound on gradient norms, batched over examples and rows.

A function of the network, the gates, the functionals and the gradient intervals, never of an input. The mathematics
is in docs/quadratic-gates.md. Data and certificate are in float64 whatever the problem's precision; iterations need
less at first.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.budget import Deadline, fitting
from lipcompare.gates import Coupling, Gates
from lipcompare.jacobian.gradients import Gradients
from lipcompare.jacobian.linear import norm_bound
from lipcompare.network.graph import Network
from lipcompare.problem import Norm
from lipcompare.quadratic.cuts.separation import tighten, tightened_bytes
from lipcompare.quadratic.memory import Pack, first_seconds, lifted_gates, packs, program_bytes, sign_count, widths
from lipcompare.quadratic.patterns import explore
from lipcompare.quadratic.program import GateMaps, SdpData, entry_data, gate_maps, l1_data, l2_data
from lipcompare.quadratic.scaling import rescaled
from lipcompare.quadratic.scheduling import Tasks, batches, tasks_of
from lipcompare.quadratic.solver.certificate import certify
from lipcompare.quadratic.solver.interior_point import SdpSolution, solve
from lipcompare.rounding import root_above

_STEPS = 10
"""Iterations of a program, about."""


@dataclasses.dataclass(frozen=True, eq=False)
class SdpBound:
    """Upper bounds on every row's gradient norm; arrays are (examples, rows).

    Attributes:
        upper: the smaller of the certified semidefinite bound and the linear one.
        linear: the linear bound.
        fell_back: rows that the semidefinite bound did not improve: it failed, did not fit in memory or time, or is no
            better. Rows left alone because they cannot be the largest are not among them.
        pruned: rows that were stopped or never started because they cannot be the largest, or met the target.
        iterations: interior point iterations (the largest over a row's problems).
        converged: rows solved to the tolerance.
        restricted: examples (examples,) of which only some gates or signs fit in memory and got coordinates.
        no_memory: examples (examples,) of which nothing fits.
        too_long: examples (examples,) whose first program would have taken longer than there was time, so that none was
            begun.
        no_time: whether the deadline cut the work short.
        solved: the batches with their data and solutions, if asked for.
    """

    upper: Tensor
    linear: Tensor
    fell_back: Tensor
    pruned: Tensor
    iterations: Tensor
    converged: Tensor
    restricted: Tensor
    no_memory: Tensor
    too_long: Tensor
    no_time: bool
    solved: tuple[tuple[SdpData, SdpSolution], ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class _Setting:
    """What is asked for, in float64."""

    network: Network
    gates: Gates
    functionals: Tensor
    gradients: Gradients
    norm: Norm
    tolerance: float
    cuts: int
    max_iterations: int
    only_maximum: bool
    memory: int
    deadline: Deadline
    keep: bool
    compete: bool  # rows stop once they are under the floor
    aim: Tensor | None  # (examples,) in the units of the objective
    coupling: Coupling | None

    @property
    def one_maximum(self) -> bool:
        """Only the largest of a group of programs counts."""
        return self.only_maximum or self.norm is Norm.ONE


@dataclasses.dataclass(frozen=True, eq=False)
class _Results:
    """What is known of every program, filled in batch by batch."""

    upper: Tensor
    iterations: Tensor
    converged: Tensor
    pruned: Tensor
    tried: Tensor
    floor: Tensor  # (groups,) programs that end under it are not expected to be the largest of their group
    least: Tensor  # (groups,) those that end under it cannot be, whatever cuts do to the others
    solved: list[tuple[SdpData, SdpSolution]]


@dataclasses.dataclass(frozen=True, eq=False)
class _Solved:
    """A batch of programs with its solution."""

    index: Tensor  # (programs of the batch,) which ones of all
    data: SdpData
    solution: SdpSolution


@dataclasses.dataclass(frozen=True, eq=False)
class _Prepared:
    """A pack's coefficient maps and where each example is in them."""

    pack: Pack
    maps: GateMaps
    gradients: Gradients
    position: Tensor  # (examples,), -1 for examples of other packs
    width: int
    own: Tensor  # (examples of the pack,)
    room: int  # programs that fit in memory
    coupling: Coupling | None


def sdp_bound(
    network: Network,
    gates: Gates,
    functionals: Tensor,
    gradients: Gradients,
    norm: Norm,
    *,
    tolerance: float = 1e-4,
    cuts: int = 0,
    coupling: Coupling | None = None,
    max_iterations: int = 40,
    only_maximum: bool = True,
    prune_below: Tensor | None = None,
    target: Tensor | None = None,
    memory: int = 2**30,
    deadline: float | None = None,
    keep: bool = False,
) -> SdpBound:
    """Bound the dual norm of every gradient row.

    Args:
        functionals: (examples, rows, outputs).
        gradients: what :func:`~lipcompare.jacobian.linear.gradient_intervals` gives for the same gates.
        tolerance: relative gap between primal and dual at which a row stops.
        cuts: most cutting planes per row (0: none; p = inf only), see :mod:`~lipcompare.quadratic.cuts.separation`.
        coupling: what the inputs allow, for cuts (all examples; float64); None for cuts of gates alone.
        only_maximum: let a row stop once it cannot be the largest of its example; its bound is valid, but looser.
        prune_below: (examples,) rows with an upper bound at most this are left at that.
        target: (examples,) a row stops once its bound is at most this.
        memory: bytes for the matrices of one batch. An example that does not fit gets coordinates for the gates that
            matter most (:mod:`~lipcompare.quadratic.memory`), or keeps its linear bound if not even that fits.
        deadline: time (as of ``time.perf_counter``) after which iterations end with the bound that they have and
            nothing new is started.
        keep: return the data and solutions, for branching and for the attack.
    """
    network = network.to(functionals.device, torch.float64)
    gates, gradients = gates.double(), gradients.double()
    functionals = functionals.to(torch.float64)
    linear = norm_bound(network, functionals, gradients, norm)
    aim = None if target is None else _power(target.to(linear), norm)
    compete = only_maximum or norm is Norm.ONE or prune_below is not None
    setting = _Setting(
        network=network, gates=gates, functionals=functionals, gradients=gradients, norm=norm, tolerance=tolerance,
        cuts=cuts, max_iterations=max_iterations, only_maximum=only_maximum, memory=memory,
        deadline=Deadline() if deadline is None else Deadline(deadline), keep=keep, compete=compete, aim=aim,
        coupling=coupling,
    )  # fmt: skip
    tasks = tasks_of(gradients, linear, norm, only_maximum)
    results = _begin(tasks, norm, prune_below)
    examples, rows = linear.shape
    no_memory = torch.ones(examples, dtype=torch.bool, device=linear.device)
    restricted, too_long = torch.zeros_like(no_memory), torch.zeros_like(no_memory)
    for pack in packs(network, gates, gradients, rows, norm is not Norm.INF, memory):
        no_memory[pack.examples] = False
        begun = _solve_pack(setting, tasks, results, pack)
        restricted[pack.examples] = pack.restricted and begun
        too_long[pack.examples] = not begun
    return _by_row(setting, tasks, results, linear, restricted, no_memory, too_long)


def _power(value: Tensor, norm: Norm) -> Tensor:
    """A norm in the units of the objective."""
    return value.square() if norm is Norm.TWO else value


def _begin(tasks: Tasks, norm: Norm, prune_below: Tensor | None) -> _Results:
    groups = int(tasks.group.max()) + 1 if len(tasks.group) else 0
    floor = tasks.linear.new_zeros(groups)
    if prune_below is not None:
        below = _power(prune_below.to(tasks.linear).clamp(min=0), norm)
        floor.scatter_reduce_(0, tasks.group, below[tasks.example], "amax")
    none = torch.zeros_like(tasks.example, dtype=torch.bool)
    return _Results(
        upper=tasks.linear.clone(),
        iterations=torch.zeros_like(tasks.example),
        converged=none,
        pruned=none.clone(),
        tried=none.clone(),
        floor=floor,
        least=floor.clone(),
        solved=[],
    )


def _solve_pack(setting: _Setting, tasks: Tasks, results: _Results, pack: Pack) -> bool:
    """Solve the programs of the examples of one pack; whether there was time to begin."""
    device = tasks.linear.device
    position = torch.full((len(setting.functionals),), -1, dtype=torch.int64, device=device)
    position[pack.examples] = torch.arange(len(pack.examples), device=device)
    todo = ((position[tasks.example] >= 0) & (tasks.linear > 0)).nonzero().squeeze(-1)
    signs = int(sign_count(setting.gradients)[pack.examples].max()) if setting.norm is Norm.INF else 0
    ahead = first_seconds(setting.network, int(pack.coordinates.max()), signs, device)
    # Where most gates have intervals only, nothing short of the optimum is better than the linear bound.
    if not len(todo) or setting.deadline.passed(_STEPS * ahead if pack.restricted else ahead):
        return not len(todo)
    prepared = _prepare_pack(setting, pack, position)
    first: SdpData | None = None
    order = tasks.linear[todo]
    if setting.only_maximum and setting.norm is not Norm.ONE and len(todo) > 1:
        values = []
        for index in todo.split(prepared.width):
            if setting.deadline.passed():
                return True
            data, best = _programs(setting, prepared, tasks.select(index))
            values.append(best)
            first = data if len(index) == len(todo) else None
        order = torch.cat(values)
        # The optimum is at least the value of a pattern, so a row that ends lower cannot be the largest (but with cuts
        # that know the inputs it may be: then _tighten comes back to it).
        results.floor.scatter_reduce_(0, tasks.group[todo], order, "amax")
    solved: list[_Solved] = []  # to be tightened by cuts once all have a bound
    own = prepared.own[position[tasks.example[todo]]]
    for index in batches(todo, order, tasks.group[todo], own, prepared.width):
        index = _open(setting, tasks, results, index)
        if not len(index):
            continue
        if setting.deadline.passed():
            break
        if first is None:
            data, _ = _programs(setting, prepared, tasks.select(index))
        else:
            data = first.select(torch.searchsorted(todo, index))
        solution = _solve_batch(setting, tasks, results, prepared, index, data)
        if setting.cuts and not pack.restricted and setting.norm is Norm.INF:
            solved.append(_Solved(index, data, solution))
            if sum(len(s.index) for s in solved) >= prepared.room:
                _tighten(setting, tasks, results, prepared, solved)
    _tighten(setting, tasks, results, prepared, solved)
    return True


def _prepare_pack(setting: _Setting, pack: Pack, position: Tensor) -> _Prepared:
    gates, gradients = setting.gates.of(pack.examples), setting.gradients.of(pack.examples)
    lifted = None
    if pack.restricted:
        lifted = lifted_gates(setting.network, gates, gradients, int(pack.coordinates.max()))
    maps = gate_maps(setting.network, gates, setting.functionals[pack.examples], gradients, lifted)
    signs = sign_count(setting.gradients)
    width, own = widths(pack, signs if setting.norm is Norm.INF else torch.zeros_like(signs), setting.memory)
    largest = int(signs[pack.examples].max()) if setting.norm is Norm.INF else 0
    room = fitting(setting.memory, program_bytes(int(pack.coordinates.max()), largest))
    coupling = None if setting.coupling is None else setting.coupling.of(pack.examples)
    return _Prepared(
        pack=pack, maps=maps, gradients=gradients, position=position, width=width, own=own, room=room, coupling=coupling
    )


def _open(setting: _Setting, tasks: Tasks, results: _Results, index: Tensor) -> Tensor:
    """The programs with something left to do: not those whose linear bound is under the floor or the target."""
    floor = results.floor if setting.coupling is None else results.least
    idle = tasks.linear[index] <= floor[tasks.group[index]]
    if setting.aim is not None:
        idle |= tasks.linear[index] <= setting.aim[tasks.example[index]]
    results.pruned[index[idle]] = True
    return index[~idle]


def _programs(setting: _Setting, prepared: _Prepared, tasks: Tasks) -> tuple[SdpData, Tensor]:
    """Data of some programs in the solver's units, and the values of their best patterns."""
    position, maps, norm = prepared.position[tasks.example], prepared.maps, setting.norm
    if norm is Norm.INF:
        data = l1_data(maps, prepared.gradients, tasks.linear, position, tasks.row, prepared.pack.most_signs)
    elif norm is Norm.TWO:
        data = l2_data(maps, tasks.linear, position, tasks.row)
    else:
        data = entry_data(maps, tasks.linear, position, tasks.row, tasks.entry, tasks.sign)
    patterns = explore(data)
    return rescaled(data, patterns), patterns.values.amax(-1) * data.scale


def _solve_batch(
    setting: _Setting, tasks: Tasks, results: _Results, prepared: _Prepared, index: Tensor, data: SdpData
) -> SdpSolution:
    """Solve one batch of programs, certify what it gives, and let the other programs know."""
    one_maximum, cuts = setting.one_maximum, setting.cuts if not prepared.pack.restricted else 0
    solution = solve(
        data,
        tolerance=setting.tolerance,
        max_iterations=setting.max_iterations,
        target=None if setting.aim is None else setting.aim[tasks.example[index]] / data.scale,
        group=tasks.group[index] if setting.compete else None,
        floor=results.floor if setting.compete else None,
        # With cuts the largest may still sink below a row that it beats now.
        compete=one_maximum and not cuts,
        deadline=setting.deadline,
    )
    upper = torch.minimum(results.upper[index], certify(data, solution.dual) * data.scale)
    results.upper[index] = upper
    results.tried[index] = True
    results.iterations[index] = solution.iterations
    results.converged[index] = solution.converged
    results.pruned[index] = ~solution.converged & solution.stopped
    if one_maximum and not cuts:
        results.floor.scatter_reduce_(0, tasks.group[index], upper.clamp(max=1e300), "amax")
    if setting.keep:
        names = data.coordinates.spread(prepared.pack.examples, len(prepared.position))
        named = dataclasses.replace(data, example=tasks.example[index], coordinates=names)
        results.solved.append((named, solution))
    return solution


def _tighten(setting: _Setting, tasks: Tasks, results: _Results, prepared: _Prepared, solved: list[_Solved]) -> None:
    """Cuts for the programs that can still be the largest, the largest of every group first; empties the list.

    One that stopped early because another looked larger is solved to the end before it gets cuts.
    """
    home = torch.full_like(tasks.example, -1)  # the batch that holds each program's solution
    for i, batch in enumerate(solved):
        home[batch.index] = i
    waiting = home >= 0
    if setting.aim is not None:
        waiting &= results.upper > setting.aim[tasks.example]
    while not setting.deadline.passed():
        chosen = waiting & (results.upper > results.least[tasks.group])
        if setting.one_maximum:
            reach = results.upper.masked_fill(~chosen, -torch.inf)
            top = torch.full_like(results.least, -torch.inf).scatter_reduce(0, tasks.group, reach, "amax")
            chosen &= reach >= top[tasks.group]
        if not bool(chosen.any()):
            break
        for i, batch in enumerate(list(solved)):
            again = (chosen[batch.index] & (home[batch.index] == i)).nonzero().squeeze(-1)
            early = batch.solution.stopped[again]
            if bool(early.any()):
                home[batch.index[again[early]]] = len(solved)
                solved.append(_to_the_end(setting, results, batch, again[early]))
            size = tightened_bytes(batch.data.size, setting.cuts, prepared.coupling is not None)
            for some in again[~early].split(fitting(setting.memory, size)) if not bool(early.all()) else ():
                index = batch.index[some]
                tightened = tighten(
                    batch.data.select(some), batch.solution.select(some), prepared.maps,
                    prepared.position[tasks.example[index]], tasks.row[index],
                    cuts=setting.cuts, tolerance=setting.tolerance, deadline=setting.deadline,
                    network=setting.network, coupling=prepared.coupling,
                )  # fmt: skip
                upper = results.upper[index] = torch.minimum(results.upper[index], tightened.upper)
                waiting[index] = False
                if setting.one_maximum:
                    results.least.scatter_reduce_(0, tasks.group[index], upper.clamp(max=1e300), "amax")
    solved.clear()


def _to_the_end(setting: _Setting, results: _Results, batch: _Solved, which: Tensor) -> _Solved:
    """Programs of a batch that had stopped early, solved to the tolerance."""
    index, data = batch.index[which], batch.data.select(which)
    most = setting.max_iterations
    solution = solve(data, tolerance=setting.tolerance, max_iterations=most, deadline=setting.deadline)
    results.upper[index] = torch.minimum(results.upper[index], certify(data, solution.dual) * data.scale)
    results.iterations[index] += solution.iterations
    results.converged[index] = solution.converged
    results.pruned[index] = False
    return _Solved(index, data, solution)


def _by_row(
    setting: _Setting,
    tasks: Tasks,
    results: _Results,
    linear: Tensor,
    restricted: Tensor,
    no_memory: Tensor,
    too_long: Tensor,
) -> SdpBound:
    """Results of rows from those of programs."""
    examples, rows = linear.shape
    upper, start = results.upper, tasks.linear
    upper = torch.where(upper.isnan(), start, upper)  # numbers out of range cancelled
    if setting.norm is Norm.TWO:
        # A square that underflowed says nothing of its root.
        lost = (start == 0) & (linear[tasks.example, tasks.row] > 0)
        upper, start = torch.where(lost, torch.inf, root_above(upper, start)), start.sqrt()
    flat = tasks.example * rows + tasks.row

    def largest(values: Tensor, fill: Tensor) -> Tensor:
        return fill.reshape(-1).scatter_reduce(0, flat, values, "amax").view(examples, rows)

    zero = torch.zeros(examples, rows, dtype=torch.int64, device=linear.device)

    def any_of(mask: Tensor) -> Tensor:
        return largest(mask.to(zero), zero) > 0

    improved = results.tried & (upper < start)
    worst = torch.minimum(largest(upper, torch.zeros_like(linear)), linear)
    done = results.converged | (results.pruned & (setting.norm is Norm.ONE))
    return SdpBound(
        upper=worst,
        linear=linear,
        fell_back=~any_of(improved) & ~any_of(results.pruned & ~improved) & (linear > 0),
        pruned=any_of(results.pruned),
        iterations=largest(results.iterations, zero),
        converged=~any_of(~done),
        restricted=restricted,
        no_memory=no_memory,
        too_long=too_long,
        no_time=setting.deadline.missed,
        solved=tuple(results.solved),
    )
