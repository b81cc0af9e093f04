r"""Identities of a process given by its generator, which may have no transition density.

With the operator L, its adjoint, the prior pi and, where there is a kernel, the marginal q_t of a
few atoms:

.. math:: q_1 = \pi, \qquad E[f(X_v)] = f(x_0) + E \int_0^v L f(X_u)\, du, \qquad
   \partial_t q_t = L_t^* q_t = -K_t^* q_t .

The first is looked at in ``terminal``; the second (Dynkin's formula) is tested on simulated states,
for a function f that is a narrow bump around the draw of the prior nearest to their mean, away from
any boundary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reversal import state
from reversal.core import Capability
from reversal.operators import Local, Reversal
from reversal.processes import FromGenerator
from reversal.testing.comparison import require, require_close
from reversal.testing.stencils import in_time
from reversal.testing.terminal import numbers, prior_is_reached

_ITEMS = 16
_WALKERS = 20_000
_STEPS = 40
_SHORT = 0.02
_WIDTH = 0.3  # of the bump, in standard deviations of the prior
_FAR = 4.9  # standard errors: beyond them with probability 1e-6


def check_generated(process: FromGenerator, mismatch: float = 1e-3, seed: int = 0) -> None:
    """Run every identity that applies; the statistical ones fail a right process once in 1e-4."""
    source = torch.Generator().manual_seed(seed)
    x = _real(process.prior.sample(_ITEMS, source))
    process.space.check(x, "draws of the prior")
    prior_is_reached(process, x, mismatch, source)
    walks_follow_the_generator(process, x, source)
    increments_add_up(process, x)
    operators_agree(process, x)
    if process.exact is not None:
        marginals_flow(process, x)


def walks_follow_the_generator(process: FromGenerator, x: Any, source: torch.Generator) -> None:
    """Dynkin's formula for the simulation, over a short operational time."""
    start = _central(x)
    center = _floats(start)
    width = state.map(lambda part: _WIDTH * part.std(0).clamp_min(1e-3), _floats(x))
    wide = state.map(lambda part: part.expand(_WALKERS, *part.shape[1:]), start)

    def bump(y: Any) -> Tensor:
        apart = state.map(
            lambda a, b, w: (((a - b) / w) ** 2).sum(1) / 2, _floats(y), center, width
        )
        return (-state.total(apart)).exp()

    rate = process.operator(bump)
    short = torch.full((_WALKERS,), _SHORT / _STEPS, dtype=torch.float64)
    walk, total = wide, torch.zeros(_WALKERS, dtype=torch.float64)
    for _ in range(_STEPS):
        total += rate(walk).detach() * short
        walk = process.walk(walk, short, source)
    gap = bump(walk) - bump(wide) - total
    spread = float(gap.std()) / _WALKERS**0.5
    slack = float(total.abs().mean()) * 2 / _STEPS
    require(
        abs(float(gap.mean())) <= _FAR * spread + slack,
        f"Dynkin's formula fails for {process}: simulated states move by "
        f"{float(gap.mean() + total.mean()):.3g}, the generator says {float(total.mean()):.3g} "
        f"(standard error {spread:.2g}).",
    )


def increments_add_up(process: FromGenerator, x: Any) -> None:
    """The generator per unit of t times dt is the increment over a short step."""
    t, h = torch.full((state.batch_size(x),), 0.5, dtype=torch.float64), 1e-4
    rates = process.forward(x, t)
    steps = process.increment(x, t + h / 2, t - h / 2)
    for rate, step in zip(state.leaves(rates), state.leaves(steps), strict=True):
        for now, moved in zip(numbers(rate), numbers(step), strict=True):
            require_close("increment = generator x dt", moved / h, now, of=process, tolerance=1e-6)


def operators_agree(process: FromGenerator, x: Any) -> None:
    """The operator at time t is the one that was given, times the rate of the clock."""
    t = torch.full((state.batch_size(x),), 0.5, dtype=torch.float64)
    rate = process.schedule.variance(t).rate
    given = rate * process.operator.adjoint_relative(lambda y: 0.5 * process.prior.log_prob(y))(x)
    there = Local.of(process, t).adjoint_relative(lambda y: 0.5 * process.prior.log_prob(y))(x)
    require_close("L_t = dv/dt L", there, given, of=process, t=0.5, size=given.detach().abs())


def marginals_flow(process: FromGenerator, x: Any) -> None:
    """d/dt q_t = L_t* q_t = -K_t* q_t, with the kernel that was given."""
    require(Capability.GENERATOR in process.provides, f"{process} has no generator.")
    atoms = state.map(lambda part: part[:3], x)

    def log_q(y: Any, t: float) -> Tensor:
        n = state.batch_size(y)
        logs = [
            process.kernel(
                state.map(lambda a, k=k: a[k : k + 1].expand(n, *a.shape[1:]), atoms),
                torch.full((n,), t, dtype=torch.float64),
            ).log_prob(y)
            for k in range(3)
        ]
        return torch.stack(logs).logsumexp(0)

    for t in (0.3, 0.7):
        operator = Local.of(process, t)
        rate = in_time(lambda s: log_q(x, s), t)
        flow = operator.adjoint_relative(lambda y, t=t: log_q(y, t))(x)
        require_close(
            "the forward equation d/dt q_t = L* q_t", flow, rate, of=process, t=t, size=rate.abs()
        )
        back = Reversal(operator, lambda y, t=t: log_q(y, t))
        flow = back.adjoint_relative(lambda y, t=t: log_q(y, t))(x)
        require_close(
            "the reversal's equation", -flow, rate, of=process, t=t, size=rate.abs(), tolerance=1e-8
        )


def _central(x: Any) -> Any:
    """The item nearest to the mean, in standard deviations, as a batch of one."""
    far = state.map(
        lambda part: ((part - part.mean(0)) / part.std(0).clamp_min(1e-3)).square().sum(1),
        _floats(x),
    )
    row = int(state.total(far).argmin())
    return state.map(lambda part: part[row : row + 1], x)


def _real(x: Any) -> Any:
    return state.map(lambda part: part.double() if part.is_floating_point() else part, x)


def _floats(x: Any) -> Any:
    return state.map(lambda part: part.double().reshape(len(part), -1), x)
