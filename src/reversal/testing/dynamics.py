r"""Identities of generators: Kolmogorov's equation, the reversal, detailed balance, integrals.

With u = log q_t, the adjoint of a generator with drift f, isotropic covariance a and rates R is,
factor by factor,

.. math:: \frac{L^* q}{q} = \sum_i \Big[-E_i f_i - f_i E_i u
   + \tfrac12 \big(E_i^2 a_i + 2\, E_i a_i\, E_i u + a_i (E_i^2 u + (E_i u)^2)\big)\Big]
   + \sum_y \Big[\frac{q(y)}{q(x)} R(y \to x) - R(x \to y)\Big],

for a frame E_i of tangent fields without divergence, along which ``space.move`` walks: axes of R^d,
angles, body frames of rotations. It is evaluated at states drawn from q_t and their neighbors
alone, so it costs no enumeration of the space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reversal import state
from reversal.core import Capability
from reversal.testing.comparison import require_close
from reversal.testing.statistics import require_frequencies
from reversal.testing.stencils import Around, first, in_time, repeated, second
from reversal.testing.trial import Trial

CHURNS = (0.0, 0.5, 1.0, 2.0)
_NODES = 48
_JUMPS = 2000

GeneratorAt = Callable[[Any], Any]


def forward_equation(trial: Trial) -> None:
    """d/dt q_t = L_t* q_t."""
    flow, size = adjoint(trial, lambda x: trial.process.forward(x, trial.clock(x)))
    rate = in_time(lambda t: trial.log_q(trial.x, t), trial.t)
    require_close(
        "the forward equation d/dt q_t = L* q_t",
        flow, rate, of=trial.process, t=trial.t, size=size,
    )  # fmt: skip


def reversal_equation(trial: Trial) -> None:
    """d/dt q_t = -K_c* q_t for every churn c: K_c keeps the marginals."""
    rate = in_time(lambda t: trial.log_q(trial.x, t), trial.t)
    for churn in CHURNS:
        flow, size = adjoint(trial, lambda x, c=churn: reverse(trial, x, c))
        require_close(
            f"the reversal's forward equation -d/dt q_t = K* q_t at churn {churn:g}",
            -flow, rate, of=trial.process, t=trial.t, size=size,
        )  # fmt: skip


def reverse(trial: Trial, x: Any, churn: float) -> Any:
    """K_c at x, by the exact score."""
    return trial.process.reverse(x, trial.clock(x), trial.score(x), churn)


def velocity_is_flow(trial: Trial) -> None:
    """The velocity of the estimate is minus the drift of K_0, where there is a velocity."""
    law, estimate = reverse(trial, trial.x, 0.0), trial.estimate(trial.x)
    for name in trial.names:
        path = state.take(trial.process.parts, name)
        if path.space.is_real and Capability.VELOCITY in path.provides:
            require_close(
                "velocity = -drift of K_0",
                state.take(estimate, name).velocity,
                -state.take(law, name).drift,
                of=path,
                t=trial.t,
                size=state.take(law, name).drift.abs(),
            )


def detailed_balance(trial: Trial) -> None:
    r"""L + K_1 is reversible: drift = (a grad log q + div a)/2; q(x) M(x, y) = q(y) M(y, x)."""

    def corrector(x: Any) -> Any:
        return trial.process.corrector(x, trial.clock(x), trial.score(x))

    for name in trial.names:
        part = state.take(trial.process.space.parts, name)
        check = _balance_of_drift if part.is_real else _balance_of_rates
        check(trial, name, corrector)


def _balance_of_drift(trial: Trial, name: str, corrector: GeneratorAt) -> None:
    moves = trial.moves(name)
    law = state.take(corrector(trial.x), name)
    gradient = first(trial.log_q_at(moves), moves.step).T
    a = _covariances(law, trial, name, len(gradient), moves.tangents)
    around = state.take(corrector(moves.points), name)
    a_around = _covariances(around, trial, name, moves.tangents * 8 * moves.batch, moves.tangents)
    divergence = first(moves.diagonal(a_around), moves.step).T
    require_close(
        "detailed balance of L + K_1: drift = (a grad log q + div a) / 2",
        law.drift.reshape(gradient.shape),
        (a * gradient + divergence) / 2,
        of=state.take(trial.process.parts, name),
        t=trial.t,
        size=law.drift.reshape(gradient.shape).abs(),
    )


def _balance_of_rates(trial: Trial, name: str, corrector: GeneratorAt) -> None:
    near = trial.neighbors(name)
    out = near.out(state.take(corrector(trial.x), name).rates)
    back, ratio = _inward(trial, near, name, corrector)
    require_close(
        "detailed balance of L + K_1: q(x) M(x, y) = q(y) M(y, x)",
        torch.where(near.differs, out, 0.0),
        ratio * back,
        of=state.take(trial.process.parts, name),
        t=trial.t,
        size=out,
    )


def elapsed_is_integral(trial: Trial) -> None:
    """`elapsed` integrates the generator: exactly for (drift, variance), else up to one factor."""
    for name in trial.names:
        path, x = state.take(trial.process.parts, name), state.take(trial.x, name)
        middle = (trial.s + trial.t) / 2
        whole = _integral(path, x, trial, trial.s, trial.t)
        elapsed = path.elapsed(trial.clock(x, trial.s), trial.clock(x))
        if isinstance(elapsed, tuple):
            pairs = [(whole[0], elapsed[0] * x), (whole[1], elapsed[1].expand_as(whole[1]))]
        else:
            half = path.elapsed(trial.clock(x, trial.s), trial.clock(x, middle))
            lift = whole[0].ndim - elapsed.ndim
            part = _integral(path, x, trial, trial.s, middle)[0]
            pairs = [(whole[0] * state.trail(half, lift), part * state.trail(elapsed, lift))]
        for got, expected in pairs:
            require_close(
                "elapsed = integral of the generator",
                expected, got, of=path, t=trial.t, size=got.abs(),
            )  # fmt: skip


def increment_is_rate(trial: Trial, step: float = 1e-4) -> None:
    """`increment` over a short step is the generator times its length, up to second order."""
    for name in trial.names:
        path, x = state.take(trial.process.parts, name), state.take(trial.x, name)
        now = _numbers(path.forward(x, trial.clock(x)), path, x)
        whole, half = (
            _numbers(path.increment(x, trial.clock(x), trial.clock(x, trial.t - h)), path, x)
            for h in (step, step / 2)
        )
        for law, long, short in zip(now, whole, half, strict=True):
            require_close(
                "increment = generator x length for short steps",
                4 * short / step - long / step,
                law,
                of=path,
                t=trial.t,
                size=law.abs(),
                tolerance=1e-5,
            )


def jumps_are_consistent(trial: Trial) -> None:
    """`total` sums the rates; `into` holds those of the neighbors; `sample_jump` follows them."""
    law = trial.process.forward(trial.x, trial.clock(trial.x))
    for name in trial.names:
        path = state.take(trial.process.parts, name)
        if path.space.is_real:
            continue
        own = state.take(law, name)
        require_close(
            "total = sum of rates", own.total, own.rates.sum(-1), of=path, t=trial.t, size=own.total
        )
        _jumps_follow_rates(trial, path, state.take(trial.x, name))
        near = trial.neighbors(name)
        there = trial.process.forward(near.points, trial.clock(near.points))
        require_close(
            "jumps.into = rates of the neighbors into x",
            torch.where(near.differs, near.out(own.jumps.into), 0.0),
            torch.where(near.differs, near.returning(state.take(there, name).rates), 0.0),
            of=path,
            t=trial.t,
        )


def _jumps_follow_rates(trial: Trial, path: Any, x: Tensor) -> None:
    wide = repeated(x[:1], _JUMPS)
    law = path.forward(wide, trial.clock(wide))
    jumps = law.sample_jump(trial.generator).reshape(_JUMPS, -1)
    rates = law.rates[0].reshape(jumps.shape[1], -1)
    for site, rate in enumerate(rates):
        if rate.sum() > 0:
            counts = torch.bincount(jumps[:, site], minlength=len(rate))
            what = f"sample_jump of {path} at t = {trial.t:g}, site {site}"
            require_frequencies(counts, rate / rate.sum(), of=what)


def adjoint(trial: Trial, generator: GeneratorAt) -> tuple[Tensor, Tensor]:
    """L* q / q at the trial's states, ``(B,)``, and the sum of the magnitudes of its terms."""
    terms: list[Tensor] = []
    for name in trial.names:
        part = state.take(trial.process.space.parts, name)
        terms += (_flow if part.is_real else _exchange)(trial, name, generator)
    return torch.stack(terms).sum(0), torch.stack(terms).abs().sum(0)


def _flow(trial: Trial, name: str, generator: GeneratorAt) -> list[Tensor]:
    """Drift and diffusion terms of one factor, each ``(B,)``."""
    moves = trial.moves(name)
    u, u_around = trial.log_q(trial.x), trial.log_q_at(moves)
    slope, bend = first(u_around, moves.step), second(u_around, u, moves.step)
    here, around = (state.take(generator(at), name) for at in (trial.x, moves.points))
    a = _covariances(here, trial, name, moves.batch, moves.tangents).T
    wide = _covariances(around, trial, name, 8 * moves.tangents * moves.batch, moves.tangents)
    a_around = moves.diagonal(wide)
    a_slope, a_bend = first(a_around, moves.step), second(a_around, a, moves.step)
    terms = [(a_bend + 2 * a_slope * slope) / 2, a * bend / 2, a * slope**2 / 2]
    if here.drift is not None:
        f = here.drift.reshape(moves.batch, moves.tangents).T
        terms += [-first(moves.diagonal(around.drift), moves.step), -f * slope]
    return [term.sum(0) for term in terms]


def _exchange(trial: Trial, name: str, generator: GeneratorAt) -> list[Tensor]:
    """What jumps in from the neighbors of x and out of x, each ``(B,)``."""
    near = trial.neighbors(name)
    back, ratio = _inward(trial, near, name, generator)
    law = state.take(generator(trial.x), name)
    return [(ratio * back).sum((0, 1)), -law.rates.flatten(1).sum(1)]


def _inward(trial: Trial, near: Around, name: str, generator: GeneratorAt) -> tuple[Tensor, Tensor]:
    """Rates y -> x and q(y)/q(x) for the neighbors y, both ``(S, N, B)``, 0 where q(y) = 0."""
    ratio = (trial.log_q_at(near) - trial.log_q(trial.x)).exp()
    back = near.returning(state.take(generator(near.points), name).rates)
    occurs = near.differs & (ratio > 0)
    return torch.where(occurs, back, 0.0), torch.where(occurs, ratio, 0.0)


def _covariances(law: Any, trial: Trial, name: str, batch: int, tangents: int) -> Tensor:
    """The covariance along every tangent direction, ``(B, T)``."""
    part = state.take(trial.process.space.parts, name)
    a = torch.as_tensor(law.covariance, dtype=torch.float64)
    lifted = a[(...,) + (None,) * (len(part.tangent_shape) - len(part.sites))]
    return lifted.expand(batch, *part.tangent_shape).reshape(batch, tangents)


def _numbers(law: Any, path: Any, x: Tensor) -> list[Tensor]:
    """A generator as plain tensors: rates, or drift and covariance."""
    if law.jumps is not None:
        return [law.rates]
    a = torch.as_tensor(law.covariance, dtype=torch.float64).expand(len(x), *path.space.sites)
    return [a] if law.drift is None else [law.drift, a]


def _integral(path: Any, x: Tensor, trial: Trial, s: float, t: float) -> list[Tensor]:
    """The generator at a frozen x, integrated over [s, t] by Gauss-Legendre quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    times = torch.as_tensor(s + (t - s) * (nodes + 1) / 2)
    shares = torch.as_tensor(weights * (t - s) / 2)
    clock = times.repeat_interleave(len(x))
    wide = repeated(x, _NODES)
    numbers = _numbers(path.forward(wide, clock), path, wide)
    return [torch.tensordot(shares, n.reshape(_NODES, len(x), *n.shape[1:]), 1) for n in numbers]
