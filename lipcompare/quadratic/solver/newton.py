"""One predictor-corrector iteration of the interior point method: HKM direction, signs and trace eliminated in blocks.

``P`` is ``S^-1``; ``K`` and ``G`` are the matrices with columns ``k_i`` and ``g_j``. The Newton matrix consists of
entrywise products of ``M``, ``P``, ``K' M K``, ``K' P K`` and the like (docs/quadratic-gates.md), so an iteration is a
handful of dense products and three Cholesky factorisations. ``K`` is block triangular (a gate's gradient depends on
gates nearer the output only), and products with it skip the zero blocks.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lipcompare.quadratic.program import SdpData
from lipcompare.quadratic.solver.steps import block_limit, matrix_limit, scalar_limit

FRACTION = 0.95  # of the step to the boundary
SIGMA = 1e-4  # smallest centring
LANCZOS = (6, 8)  # steps for the predictor and the corrector


@dataclasses.dataclass(eq=False)
class State:
    """Iterates of the problems still running; every tensor has them as its first axis."""

    data: SdpData
    theta: Tensor
    lam: Tensor
    tau: Tensor  # (problems, J) the 2x2 dual block is [[tau, -1/2], [-1/2, lam]]
    d: Tensor
    nu: Tensor  # (problems, cuts)
    x: Tensor  # (problems, cuts) their slacks, 0 for equations
    slack: Tensor  # S
    moments: Tensor  # M
    x11: Tensor  # (problems, J) the 2x2 primal block
    x12: Tensor
    x22: Tensor
    s: Tensor  # (problems,) slack of the trace constraint
    infeasible: Tensor  # (problems,) what is left of the first primal infeasibility
    probe: Tensor  # (problems, n) start vector of Lanczos
    factors: Tensor  # (2, problems, n, n) Cholesky factors of M and of S

    def select(self, keep: Tensor) -> State:
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("data", "factors")]
        changes = {name: getattr(self, name)[keep] for name in names}
        return State(data=self.data.select(keep), factors=self.factors[:, keep], **changes)


@dataclasses.dataclass(eq=False)
class _Step:
    """A direction in all variables."""

    theta: Tensor
    lam: Tensor
    tau: Tensor
    d: Tensor
    nu: Tensor
    x: Tensor
    slack: Tensor
    moments: Tensor
    x11: Tensor
    x12: Tensor
    x22: Tensor
    s: Tensor
    product: Tensor  # dS P


def complementarity(state: State) -> Tensor:
    """``<M, S> + sum_j <X_j, Z_j> + s d``, (problems,)."""
    blocks = state.x11 * state.tau - state.x12 + state.x22 * state.lam
    total = _inner(state.moments, state.slack) + (blocks * state.data.entry_mask).sum(-1)
    # Absent coordinates hold 1 in both matrices.
    total = total - (~state.data.mask).sum(-1) + state.s * state.d
    return total + (state.x * state.nu * state.data.cuts.mask).sum(-1)


def order(data: SdpData) -> Tensor:
    """Barrier parameter of the whole cone, (problems,)."""
    return data.mask.sum(-1) + 2 * data.entry_mask.sum(-1) + (data.cuts.mask & ~data.cuts.equal).sum(-1) + 1


def advance(state: State) -> tuple[State, Tensor]:
    """One iteration; False marks problems whose linear algebra failed (they stay where they were)."""
    newton = _Newton(state)
    aff = newton.direction(None, None)
    alpha_p, alpha_d = newton.lengths(aff, LANCZOS[0])
    count = order(state.data)
    mu = complementarity(state) / count
    reached = _complementarity_after(state, aff, alpha_p, alpha_d) / count
    sigma = (reached / mu).clamp(min=0.0, max=1.0).square().clamp(min=SIGMA)
    step = newton.direction(sigma * mu, aff)
    alpha_p, alpha_d = newton.lengths(step, LANCZOS[1])
    healthy = newton.healthy & torch.isfinite(alpha_p) & torch.isfinite(alpha_d) & torch.isfinite(step.theta).all(-1)
    if not bool(healthy.all()):
        alpha_p, alpha_d = torch.where(healthy, alpha_p, 0.0), torch.where(healthy, alpha_d, 0.0)
        step = _zero_where(~healthy, step)
    base = torch.stack([state.moments, state.slack])
    change = torch.stack([step.moments, step.slack])
    (moments, slack), factors, (alpha_p, alpha_d) = _accept(
        base, state.factors, change, torch.stack([alpha_p, alpha_d])
    )
    p, q = alpha_p.unsqueeze(-1), alpha_d.unsqueeze(-1)
    after = State(
        state.data,
        torch.addcmul(state.theta, q, step.theta), torch.addcmul(state.lam, q, step.lam),
        torch.addcmul(state.tau, q, step.tau), torch.addcmul(state.d, alpha_d, step.d),
        torch.addcmul(state.nu, q, step.nu), torch.addcmul(state.x, p, step.x), slack, moments,
        torch.addcmul(state.x11, p, step.x11), torch.addcmul(state.x12, p, step.x12),
        torch.addcmul(state.x22, p, step.x22), torch.addcmul(state.s, alpha_p, step.s),
        state.infeasible * (1 - alpha_p), state.probe, factors,
    )  # fmt: skip
    return after, healthy & ((alpha_p > 0) | (alpha_d > 0))


def _zero_where(failed: Tensor, step: _Step) -> _Step:
    """The direction with the problems at ``failed`` (problems,) standing still."""
    return _Step(
        *(
            torch.where(failed.view(-1, *[1] * (value.ndim - 1)), 0.0, value)
            for value in (getattr(step, f.name) for f in dataclasses.fields(step))
        )
    )


class _Newton:
    """The factored Newton system at one iterate; directions are taken from it twice."""

    def __init__(self, state: State) -> None:
        self.state = state
        data, m = state.data, state.moments
        self.mask, self.entry_mask, self.cut_mask = (x.to(m) for x in (data.mask, data.entry_mask, data.cuts.mask))
        self.products = products = Products(data)
        unit = torch.eye(data.size, dtype=m.dtype, device=m.device)
        self.inverses: Tensor = torch.linalg.solve_triangular(state.factors, unit, upper=False)
        k_p: Tensor = self.inverses[1].mT @ self.inverses[1]
        self.p = k_p
        g, n, signs = data.entries, data.size, data.entries.shape[-1]
        mk, self.pk = products.right(m), products.right(k_p)
        kmk, kpk = products.left(mk), products.left(self.pk)
        cuts = data.cuts.mask.shape[-1]
        plain = n + signs + 1
        hessian = m.new_empty(len(m), plain + cuts, plain + cuts)
        whole, hessian = hessian, hessian[:, :plain, :plain]
        gates = hessian[:, :n, :n]
        half = mk * self.pk.mT
        half = half + half.mT
        gates.copy_(half.addcmul_(m, kpk).addcmul_(kmk, k_p))
        trace_sign = state.lam
        pull_sign = state.lam
        if signs:
            # Rows rather than columns: thin products are several times faster that way.
            gm, gp = g.mT @ m, g.mT @ k_p
            self.gp = gp
            cross = -(gm * products.right(gp) + products.right(gm) * gp)
            hessian[:, n:-1, :n] = cross
            hessian[:, :n, n:-1] = cross.mT
            gpg = gp @ g
            torch.mul(gm @ g, gpg, out=hessian[:, n:-1, n:-1])
            pull_sign = gpg.diagonal(dim1=-2, dim2=-1)
            trace_sign = -(gm * gp).sum(-1)
        trace_gate = (m * self.pk.mT).sum(-1) + (mk * k_p).sum(-2)
        hessian[:, -1, :n] = hessian[:, :n, -1] = trace_gate * self.mask
        hessian[:, -1, n:-1] = hessian[:, n:-1, -1] = trace_sign if signs else state.lam
        absent = 1 - self.mask
        hessian[:, -1, -1] = _inner(m, k_p) - absent.sum(-1) + state.s / state.d

        determinant = state.tau * state.lam - 0.25
        self.q11, self.q12, self.q22 = state.lam / determinant, 0.5 / determinant, state.tau / determinant
        self.a11, self.a12 = state.x11 * self.q11, state.x12 * self.q12
        self.ratio = self.a12 / self.a11
        one_sided = data.cuts.mask & ~data.cuts.equal
        self.inverse_nu = torch.where(one_sided, 1 / state.nu, 0.0) if cuts else state.nu
        self.pull_cut = self._cut_blocks(whole, products) if cuts else state.nu
        hessian = whole
        diagonal = hessian.diagonal(dim1=-2, dim2=-1)
        diagonal[:, :n] += (~data.equations).to(m)
        diagonal[:, n : n + signs] += state.x22 * self.q22 - self.a12 * self.ratio + (1 - self.entry_mask)
        self.scaling = diagonal.clamp(min=1e-300).rsqrt()
        hessian *= self.scaling.unsqueeze(-1)
        hessian *= self.scaling.unsqueeze(-2)
        diagonal += 1e-14
        self.factor, info = torch.linalg.cholesky_ex(hessian)
        self.healthy = info == 0
        self.pull_gate = 2 * self.pk.diagonal(dim1=-2, dim2=-1) * self.mask
        self.pull_sign = pull_sign
        self.pull_trace = k_p.diagonal(dim1=-2, dim2=-1).sum(-1) - absent.sum(-1)

    def _cut_blocks(self, whole: Tensor, products: Products) -> Tensor:
        """Fill the rows and columns of cuts, ``A_c = -(f g' + g f')``; returns ``f' P g`` (problems, cuts)."""
        state, data, p, m = self.state, self.state.data, self.p, self.state.moments
        f, g, n, signs = data.cuts.left, data.cuts.right, data.size, data.entries.shape[-1]
        mf, mg, pf, pg = m @ f, m @ g, p @ f, p @ g
        fmg, fpg = f.mT @ mg, f.mT @ pg
        block = fmg * fpg.mT
        block = block + block.mT
        block.addcmul_(f.mT @ mf, g.mT @ pg).addcmul_(g.mT @ mg, f.mT @ pf)
        at = n + signs + 1
        whole[:, at:, at:] = block
        side = whole[:, :at, at:]
        side[:, :n] = -(
            products.left(mf) * pg + products.left(mg) * pf + mf * products.left(pg) + mg * products.left(pf)
        )
        if signs:
            e = data.entries.mT
            side[:, n : n + signs] = (e @ mf) * (e @ pg) + (e @ mg) * (e @ pf)
        side[:, -1] = -(pg * mf + pf * mg).sum(-2)
        whole[:, at:, :at] = side.mT
        whole.diagonal(dim1=-2, dim2=-1)[:, at:] += state.x * self.inverse_nu + (1 - self.cut_mask)
        return fpg.diagonal(dim1=-2, dim2=-1)

    def direction(self, mu: Tensor | None, aff: _Step | None) -> _Step:
        """Step towards ``mu`` (None: 0) with the second-order terms of the predictor ``aff``."""
        state, data = self.state, self.state.data
        n, signs = data.size, data.entries.shape[-1]
        g, q11, q12, q22 = data.entries, self.q11, self.q12, self.q22
        gate, trace = -data.right, -data.trace
        first, sign, cut = -torch.ones_like(state.tau), torch.zeros_like(state.tau), torch.zeros_like(state.nu)
        if mu is not None and aff is not None:
            mean = _symmetric(aff.moments @ aff.product)
            r11 = aff.x11 * aff.tau * q11 + aff.x12 * aff.lam * q12
            r22 = aff.x12 * aff.tau * q12 + aff.x22 * aff.lam * q22
            r12 = 0.5 * (aff.tau * (aff.x11 * q12 + aff.x12 * q11) + aff.lam * (aff.x12 * q22 + aff.x22 * q12))
            rs = aff.s * aff.d / state.d
            rx = aff.x * aff.nu * self.inverse_nu
            c = mu.unsqueeze(-1)
            gate = gate + c * self.pull_gate - 2 * (mean * data.columns).sum(-2)
            trace = trace + mu * (self.pull_trace + 1 / state.d) - mean.diagonal(dim1=-2, dim2=-1).sum(-1) - rs
            first = first + c * q11 - r11
            if signs:
                sign = c * (q22 - self.pull_sign) - r22 + ((g.mT @ mean) * g.mT).sum(-1)
            if cut.shape[-1]:
                bent = ((mean @ data.cuts.left) * data.cuts.right).sum(-2)
                cut = (c * (self.inverse_nu - 2 * self.pull_cut) + 2 * bent - rx) * self.cut_mask
        right = torch.cat([gate, (sign - self.ratio * first) * self.entry_mask, trace.unsqueeze(-1), cut], -1)
        y = torch.cholesky_solve((right * self.scaling).unsqueeze(-1), self.factor).squeeze(-1) * self.scaling
        dtheta, dlam, dd = y[:, :n] * self.mask, y[:, n : n + signs] * self.entry_mask, y[:, n + signs]
        dnu = y[:, n + signs + 1 :] * self.cut_mask
        dtau = (first - self.a12 * dlam) / self.a11 * self.entry_mask
        ds = data.columns * dtheta.unsqueeze(-2)
        ds = ds + ds.mT
        if signs:
            ds.baddbmm_(g * -dlam.unsqueeze(-2), g.mT)
        if dnu.shape[-1]:
            bent = (data.cuts.left * dnu.unsqueeze(-2)) @ data.cuts.right.mT
            ds = ds - bent - bent.mT
        ds.diagonal(dim1=-2, dim2=-1).add_(dd.unsqueeze(-1) * self.mask)
        product = self._slack_product(ds, dtheta, dlam, dd)
        dm = _symmetric(state.moments @ product).add_(state.moments).neg_()
        # sym(X dZ Q), dZ = diag(dtau, dlam)
        d11 = -state.x11 - state.x11 * dtau * q11 - state.x12 * dlam * q12
        d22 = -state.x22 - state.x12 * dtau * q12 - state.x22 * dlam * q22
        cross = dtau * (state.x11 * q12 + state.x12 * q11) + dlam * (state.x12 * q22 + state.x22 * q12)
        d12 = -state.x12 - 0.5 * cross
        dslack = -state.s - state.s / state.d * dd
        dx = -state.x - state.x * self.inverse_nu * dnu
        if mu is not None and aff is not None:
            dm.sub_(mean).addcmul_(mu.view(-1, 1, 1), self.p)
            d11, d12, d22 = d11 + c * q11 - r11, d12 + c * q12 - r12, d22 + c * q22 - r22
            dslack = dslack + mu / state.d - rs
            dx = dx + c * self.inverse_nu - rx
        dm.diagonal(dim1=-2, dim2=-1).mul_(self.mask)
        return _Step(dtheta, dlam, dtau, dd, dnu, dx * self.cut_mask, ds, dm, d11, d12, d22, dslack, product)

    def lengths(self, step: _Step, lanczos: int) -> tuple[Tensor, Tensor]:
        """Step lengths (problems,) in [0, 1] that keep a fraction of the way to the boundary, primal and dual."""
        state, count = self.state, len(self.state.s)
        change = torch.cat([step.moments, step.slack])
        both = matrix_limit(self.inverses.flatten(0, 1), change, state.probe.repeat(2, 1), lanczos).view(2, count)
        if state.tau.shape[-1]:
            half, zero = torch.full_like(state.tau, -0.5), torch.zeros_like(state.tau)
            pairs = (
                (state.x11, state.tau), (state.x12, half), (state.x22, state.lam),
                (step.x11, step.tau), (step.x12, zero), (step.x22, step.lam),
            )  # fmt: skip
            both = torch.minimum(both, block_limit(*map(torch.stack, pairs)))
        both = torch.minimum(both, scalar_limit(torch.stack([state.s, state.d]), torch.stack([step.s, step.d])))
        if state.nu.shape[-1]:
            cuts = scalar_limit(torch.stack([state.x, state.nu]), torch.stack([step.x, step.nu]))
            both = torch.minimum(both, cuts.masked_fill_(state.data.cuts.equal, torch.inf).amin(-1))
        primal, dual = (FRACTION * both).clamp(max=1.0)
        return primal, dual

    def _slack_product(self, ds: Tensor, dtheta: Tensor, dlam: Tensor, dd: Tensor) -> Tensor:
        """``dS P``; with many zero blocks in ``K`` cheaper from its parts, as ``K' P`` is known."""
        data = self.state.data
        if not self.products.sparse or data.cuts.mask.shape[-1] or data.entries.shape[-1] > data.size:
            return ds @ self.p
        result = self.products.from_left(self.p * dtheta.unsqueeze(-1))
        result.addcmul_(self.pk.mT, dtheta.unsqueeze(-1))
        if dlam.shape[-1]:
            result.baddbmm_(self.state.data.entries * -dlam.unsqueeze(-2), self.gp)
        # Absent coordinates: dS has zero rows there, and P is the identity.
        return result.addcmul_(self.p, (dd.unsqueeze(-1) * self.mask).unsqueeze(-1))


class Products:
    """Products with ``K``, which is half the identity plus blocks above the diagonal, one per activation node."""

    def __init__(self, data: SdpData) -> None:
        self.columns = data.columns
        self.half = data.columns.diagonal(dim1=-2, dim2=-1)
        self.ranges = data.ranges
        self.sparse = data.size >= 80 and len(self.ranges) < data.size // 12

    def right(self, x: Tensor) -> Tensor:
        """``x K`` for ``x`` of shape (problems, m, n)."""
        if not self.sparse:
            return x @ self.columns
        out = x * self.half.unsqueeze(-2)
        for start, stop in self.ranges:
            out[..., start:stop] += x[..., :start] @ self.columns[:, :start, start:stop]
        return out

    def left(self, x: Tensor) -> Tensor:
        """``K' x`` for ``x`` of shape (problems, n, m)."""
        if not self.sparse:
            return self.columns.mT @ x
        out = x * self.half.unsqueeze(-1)
        for start, stop in self.ranges:
            out[:, start:stop] += self.columns[:, :start, start:stop].mT @ x[:, :start]
        return out

    def from_left(self, x: Tensor) -> Tensor:
        """``K x`` for ``x`` of shape (problems, n, m)."""
        if not self.sparse:
            return self.columns @ x
        out = x * self.half.unsqueeze(-1)
        for start, stop in self.ranges:
            out[:, :start] += self.columns[:, :start, start:stop] @ x[:, start:stop]
        return out


def _complementarity_after(state: State, step: _Step, alpha_p: Tensor, alpha_d: Tensor) -> Tensor:
    """Complementarity after a step, from inner products of the iterate and the step."""
    p, q = alpha_p.unsqueeze(-1), alpha_d.unsqueeze(-1)
    x11, x12, x22 = state.x11 + p * step.x11, state.x12 + p * step.x12, state.x22 + p * step.x22
    blocks = x11 * (state.tau + q * step.tau) - x12 + x22 * (state.lam + q * step.lam)
    matrices = (
        _inner(state.moments, state.slack)
        + alpha_p * _inner(step.moments, state.slack)
        + alpha_d * _inner(state.moments, step.slack)
        + alpha_p * alpha_d * _inner(step.moments, step.slack)
    )
    total = matrices - (~state.data.mask).sum(-1) + (blocks * state.data.entry_mask).sum(-1)
    total = total + ((state.x + p * step.x) * (state.nu + q * step.nu) * state.data.cuts.mask).sum(-1)
    return total + (state.s + alpha_p * step.s) * (state.d + alpha_d * step.d)


def _accept(base: Tensor, factors: Tensor, change: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices (2, problems, n, n) after the step, their factors and the steps (2, problems), shortened until Cholesky
    runs through."""
    for _ in range(8):
        after = torch.addcmul(base, alpha[..., None, None], change)
        lower, info = torch.linalg.cholesky_ex(after)
        failed = info != 0
        if not bool(failed.any()):
            return after, lower, alpha
        alpha = torch.where(failed, 0.7 * alpha, alpha)
    bad = failed[..., None, None]
    return torch.where(bad, base, after), torch.where(bad, factors, lower), torch.where(failed, 0.0, alpha)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """``<a, b>`` of matrices (problems, n, n): (problems,)."""
    result: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return result


def _symmetric(a: Tensor) -> Tensor:
    return (a + a.mT).mul_(0.5)
