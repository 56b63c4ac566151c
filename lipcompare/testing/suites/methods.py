"""What every method must do, whatever it is: hold in real numbers, and say honestly how it ended."""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
import math
import pickle
import time
from typing import ClassVar

import numpy as np
import pytest
import torch

from lipcompare.api import bound
from lipcompare.budget import TracePoint
from lipcompare.domain import Box, Norm, NormBall, Space
from lipcompare.methods import Method, get
from lipcompare.problem import Problem, margins
from lipcompare.result import Bound, Status
from lipcompare.testing import exact, hostile, networks

_NORMS = ("inf", "2", "1")
_SMOOTH = 1.0
"""Seconds for networks with smooth activations: a search that halves boxes does not end of itself there."""
_GAP = 1e-4
_ENDED = (Status.INTERRUPTED, Status.OUT_OF_MEMORY, Status.MEMORY_LIMIT, Status.CRASHED, Status.EXACT)


@functools.cache
def _telling(family: str, dtype: torch.dtype, count: int) -> tuple[tuple[int, Problem, exact.Truth], ...]:
    """Seeds, problems and their truth, without networks that are constant on their domain: 0 is easily bounded."""
    norms = itertools.cycle(_NORMS)
    norm = next(norms)
    telling: list[tuple[int, Problem, exact.Truth]] = []
    for seed in itertools.count(1):
        if len(telling) == count:
            break
        problem = hostile.problem(family, seed, norm, dtype)
        truth = exact.truth(problem)
        if any(truth.value(row, problem.norm) > 0 for row in range(problem.rows)):
            norm = next(norms)
            telling.append((seed, problem, truth))
    return tuple(telling)


@functools.cache
def _sampled(family: str) -> tuple[Problem, np.ndarray, np.ndarray]:
    """A problem of a family with a norm of its own, gradient norms at samples and an upper bound (batch, rows)."""
    norm = _NORMS[sorted(networks.FAMILIES).index(family) % 3]
    problem = networks.problem(networks.FAMILIES[family](7), 0.2, norm=norm)
    return problem, networks.sampled_norms(problem).numpy(), bound(problem, "lbp", tightening="interval").upper


@functools.cache
def _plain(norm: str) -> tuple[Problem, list[float]]:
    """A problem without any trouble, and the truth of its rows."""
    problem = networks.problem(networks.dense(5, (2, 4, 3, 2)), 0.5, norm=norm)
    truth = exact.truth(problem)
    return problem, [truth.value(row, problem.norm) for row in range(problem.rows)]


class MethodConformance:
    """Tests of one method; a subclass names it.

    Where the method does not apply to a problem (:meth:`Method.supports`), the tests ask that it says so.

    Attributes:
        method: its name, or an object with the options to be tested.
        local: it looks at the domain, so that over one point there is nothing left for it to lose.
        seconds: its time limit on tiny networks.
        seeds: problems per family of :mod:`lipcompare.testing.hostile`.
    """

    method: ClassVar[str | Method]
    local: ClassVar[bool] = True
    seconds: ClassVar[float] = 20.0
    seeds: ClassVar[int] = 1

    def made(self) -> Method:
        return get(self.method)

    def run(self, problem: Problem, limit: float | None = None) -> Bound | None:
        """The result, in its shapes; None where the method does not apply and says so."""
        method = self.made()
        result = bound(problem, method, time_limit=self.seconds if limit is None else limit)
        assert result.lower.shape == result.upper.shape == (problem.batch, problem.rows)
        assert result.status is not Status.CRASHED, result.detail
        assert not np.isnan(result.lower).any()
        assert not np.isnan(result.upper).any()
        assert (result.lower <= result.upper).all()
        reason = method.domain_reason(problem) or method.supports(problem)
        if reason is None:
            assert result.status is not Status.UNSUPPORTED, result.detail
            return result
        assert result.status is Status.UNSUPPORTED
        assert reason in result.detail
        assert result.proves == "nothing"
        return None

    def test_an_infinite_bound_has_a_reason(self) -> None:
        """Gradients of this problem are in range, and what bounds them by absolute values is not."""
        result = self.run(hostile.problem("extreme scales", 260, "1", torch.float64))
        if result is not None and self.made().proves != "lower" and result.status is Status.COMPLETE:
            assert result.detail or np.isfinite(result.upper).all()

    def test_it_says_what_it_is(self) -> None:
        method = self.made()
        assert method.proves in ("upper", "lower", "exact", "interval")
        assert method.summary
        assert "\n" not in method.summary
        assert method.reference

    def test_options_are_fields_that_a_command_line_can_give(self) -> None:
        method = self.made()
        with pytest.raises(dataclasses.FrozenInstanceError):
            method.name = "another"  # type: ignore[misc]
        values = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}  # type: ignore[arg-type]
        texts = {k: str(v.value if isinstance(v, enum.Enum) else v) for k, v in values.items() if v is not None}
        assert get(method.name, **texts) == method

    def test_a_worker_process_can_be_sent_it(self) -> None:
        assert pickle.loads(pickle.dumps(self.made())) == self.made()  # noqa: S301  # what was pickled just now

    @pytest.mark.parametrize("family", sorted(networks.FAMILIES))
    def test_bounds_hold_at_samples(self, family: str) -> None:
        """On all kinds of networks; each has a norm of its own."""
        problem, seen, ceiling = _sampled(family)
        result = self.run(problem, None if problem.network.piecewise_linear else min(_SMOOTH, self.seconds))
        if result is None:
            return
        assert (result.upper >= seen * (1 - 1e-9)).all()
        assert (result.lower <= ceiling * (1 + 1e-9)).all()
        assert result.proves != "nothing"
        self.ended_honestly(result)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("family", sorted(hostile.FAMILIES))
    def test_bounds_hold_in_real_numbers(self, family: str, dtype: str) -> None:
        """On problems that attack rounding, against the truth in rational arithmetic."""
        for seed, problem, truth in _telling(family, getattr(torch, dtype), self.seeds):
            result = self.run(problem, min(2.0, self.seconds))
            if result is None:
                continue
            for row in range(problem.rows):
                said, value = (result.lower[0, row], result.upper[0, row]), truth.value(row, problem.norm)
                assert truth.admits_upper(row, problem.norm, float(said[1])), (seed, problem.norm, row, said, value)
                assert truth.admits_lower(row, problem.norm, float(said[0])), (seed, problem.norm, row, said, value)
            self.ended_honestly(result)

    @pytest.mark.parametrize("norm", _NORMS)
    def test_every_norm_against_the_truth(self, norm: str) -> None:
        """On a plain problem: an exact method is exact there, and others prove what they say that they prove."""
        problem, values = _plain(norm)
        result = self.run(problem)
        if result is None:
            return
        assert (result.upper[0] >= np.array(values) * (1 - 1e-12)).all()
        assert (result.lower[0] <= np.array(values) * (1 + 1e-12)).all()
        proves = self.made().proves
        if proves != "lower":
            assert np.isfinite(result.upper).all()
        if proves != "upper":
            assert result.overall_lower[0] > 0
            assert result.witnesses is not None
            assert problem.box.contains(torch.as_tensor(result.witnesses.points)).all()
        if proves == "exact" and result.status is Status.EXACT:
            assert result.overall_upper[0] == pytest.approx(max(values), rel=2 * _GAP)
        self.ended_honestly(result)

    def ended_honestly(self, result: Bound) -> None:
        """The status, the trace and the ends belong together."""
        if result.status is Status.EXACT:
            assert np.isfinite(result.upper).all()
            assert (result.gap <= _GAP + 1e-9).all()
        assert result.sentence
        for before, after in itertools.pairwise(result.trace):
            assert after.seconds >= before.seconds
        if result.trace:
            # Witnesses are checked afterwards, which may take a little from what the trace says.
            assert math.isclose(result.trace[-1].upper, result.overall_upper.max(), rel_tol=1e-6)
            assert math.isclose(result.trace[-1].lower, result.overall_lower.max(), rel_tol=1e-6)

    def test_a_batch_gives_what_its_boxes_give_one_by_one(self) -> None:
        together = networks.problem(networks.dense(3, (4, 6, 6, 3)), 0.3, batch=2)
        result = self.run(together, 6 * self.seconds)
        if result is None:
            return
        for b in range(together.batch):
            alone = self.run(together.example(b), 6 * self.seconds)
            assert alone is not None
            np.testing.assert_allclose(result.lower[b], alone.lower[0], rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(result.upper[b], alone.upper[0], rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("norm", _NORMS)
    def test_over_a_point_there_is_one_gradient(self, norm: str) -> None:
        problem = networks.problem(networks.residual(5), 0.0, norm=norm)
        result = self.run(problem)
        if result is None:
            return
        expected = networks.sampled_norms(problem, samples=1).numpy()
        if self.made().proves != "lower":
            assert (result.upper >= expected * (1 - 1e-12)).all()
            if self.local:
                np.testing.assert_allclose(result.upper, expected, rtol=1e-9)
        if self.made().proves != "upper":
            np.testing.assert_allclose(result.lower, expected, rtol=1e-9)

    def test_a_kink_has_every_clarke_slope(self) -> None:
        """``relu(x) - relu(-x)`` at 0: autograd says 1, the pattern that may hold there has 2."""
        result = self.run(Problem.around(networks.kinked(), 0.0, 0.5))
        if result is None:
            return
        if self.made().proves != "lower":
            assert result.upper[0, 0] >= 2 - 1e-9
        if self.made().proves != "upper":
            assert result.lower[0, 0] == pytest.approx(2)
            assert result.witnesses is not None
            assert result.witnesses.at_kink.all()

    def test_a_constant_has_constant_zero(self) -> None:
        silent = torch.zeros(2, 2, dtype=torch.float64)
        box = Box.ball(torch.zeros(1, 3, dtype=torch.float64), 0.1)
        result = self.run(Problem(networks.dense(0, (3, 4, 2)), box, Norm.INF, silent))
        if result is None:
            return
        assert (result.lower == 0).all()
        if self.made().proves != "lower":
            assert (result.upper <= 1e-12).all()

    def test_single_precision_and_margins(self) -> None:
        network, rows = networks.dense(11, (3, 5, 3)), margins(1, 3)
        center = torch.full((1, 3), 0.5, dtype=torch.float32)
        result = self.run(Problem(network, Box.ball(center, 0.1), Norm.INF, rows))
        if result is None:
            return
        seen = networks.sampled_norms(Problem(network, Box.ball(center.double(), 0.1), Norm.INF, rows)).numpy()
        assert result.dtype == "float32"
        assert result.upper.shape == (1, 2)
        assert (result.upper >= seen * (1 - 1e-5)).all()

    def test_balls_and_the_whole_space_are_bounded_or_refused(self) -> None:
        network = networks.dense(2, (2, 4, 2))
        center = torch.full((1, 2), 0.5, dtype=torch.float64)
        ball = Problem(network, NormBall.around(center, 0.3, Norm.TWO))
        result = self.run(ball)
        if result is not None:
            angle = torch.linspace(0, 2 * math.pi, 64, dtype=torch.float64)
            around = torch.stack([angle.cos(), angle.sin()], -1)
            points = torch.cat([center + r * around for r in (0.1, 0.2, 0.299)])
            slopes = network.slopes(network.values(points))
            for row in range(ball.rows):
                functional = torch.eye(ball.rows, dtype=torch.float64)[row].expand(len(points), -1)
                values = ball.norm.dual.of(network.pull_back(slopes, functional))
                assert result.upper[0, row] >= float(values.max()) * (1 - 1e-9)
        self.run(Problem(network, Space.of(network.in_size)))

    def test_a_time_limit_is_kept_and_leaves_a_valid_interval(self) -> None:
        """With room for a busy machine: what counts is that it ends."""
        problem = networks.problem(networks.dense(4, (8, 40, 40, 40, 4)), 0.3)
        began = time.monotonic()
        result = self.run(problem, 1.0)
        assert time.monotonic() - began < 60
        if result is None:
            return
        assert (result.upper >= networks.sampled_norms(problem, 100).numpy() * (1 - 1e-9)).all()
        assert result.status.early or result.status in (Status.COMPLETE, Status.EXACT)

    @pytest.mark.parametrize(("failure", "ends_at"), [(KeyboardInterrupt, 1), (MemoryError, 2), (ZeroDivisionError, 3)])
    def test_what_was_reported_is_returned_whatever_ends_the_run(
        self, failure: type[BaseException], ends_at: int
    ) -> None:
        problem = networks.problem(networks.dense(0, (3, 5, 5, 2)), 0.3, batch=2)
        reported: list[TracePoint] = []

        def watch(point: TracePoint) -> None:
            reported.append(point)
            if len(reported) == ends_at:
                raise failure("in the callback")

        result = bound(problem, self.made(), time_limit=self.seconds, on_progress=watch)
        if not reported:
            assert result.status is Status.UNSUPPORTED
            return
        assert len(reported) <= ends_at + 1, "it went on"  # a search that ends on an interrupt tells its result
        assert result.status in _ENDED or len(reported) < ends_at
        assert result.overall_upper.max() <= reported[-1].upper * (1 + 1e-12)
        assert result.overall_lower.max() >= reported[-1].lower * (1 - 1e-9)
