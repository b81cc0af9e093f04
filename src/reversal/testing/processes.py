"""Every identity that a noising process must satisfy, run on any instance in one line."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import torch

from reversal import state
from reversal.core import Capability, Estimate, Kind, Path
from reversal.processes import FromGenerator
from reversal.testing import denoising, dynamics, laws
from reversal.testing.comparison import require_close
from reversal.testing.generated import check_generated
from reversal.testing.stencils import in_time
from reversal.testing.trial import Trial, draw_states, trials

Identity = Callable[[Trial], None]

OF_LAWS: tuple[Identity, ...] = (
    laws.kernel_starts_at_data,
    laws.kernel_is_normalized,
    laws.score_is_derivative,
    laws.chapman_kolmogorov,
    laws.bridge_is_bayes,
    laws.draws_follow_laws,
)
OF_ESTIMATES: tuple[Identity, ...] = (
    denoising.fisher_identity,
    denoising.expectations,
    denoising.conversions,
)
OF_GENERATORS: tuple[Identity, ...] = (
    dynamics.jumps_are_consistent,
    dynamics.forward_equation,
    dynamics.reversal_equation,
    dynamics.velocity_is_flow,
    dynamics.detailed_balance,
    dynamics.elapsed_is_integral,
    dynamics.increment_is_rate,
)


def check_process(process: Path, *, mismatch: float = 1e-3, seed: int = 0) -> None:
    r"""Check every identity that applies to a path, in float64.

    Of its laws, factor by factor: normalization, Chapman-Kolmogorov, Bayes, score, draws. Of its
    estimates, jointly: Fisher's identity, posterior expectations, the table of conversions. Of its
    generator, jointly: d/dt q_t = L* q_t, the same for K_c with c in {0, 0.5, 1, 2}, detailed
    balance of L + K_1, ``elapsed`` and ``increment``. Of its prior: the mismatch. A path given both
    endpoints is checked for its velocity and its conversions; a process given by its generator, for
    its prior, its simulation and, where it has a kernel, the forward equation. Without a kernel a
    mismatch is seen in means over draws of x_1: of a stationary prior, which is exact in the limit,
    only a large one (0.1 standard deviations more than allowed).

    Args:
        process: a ``Process``, a product, a ``Chain`` or an ``Interpolant``.
        mismatch: the bound on KL(q_1 | prior), nats per site, for data of unit variance.
        seed: of all draws; statistical tests fail a correct process with probability 1e-4 each.

    Raises:
        AssertionError: saying which identity failed, at which t and by how much.

    Cost: seconds; one evaluation for every code and neighbor of a finite set.
    """
    if isinstance(process, FromGenerator):
        check_generated(process, mismatch, seed)
        return
    if Capability.ENDPOINTS in process.provides:
        _check_interpolant(process, seed)
        return
    for name, part in process.factors.items() if process.factors else (("", process),):
        _check_laws(part, seed)
        if process.factors:
            _check_factor(process, name, part, seed)
    joint = OF_ESTIMATES
    if Capability.GENERATOR in process.provides:
        joint += OF_GENERATORS
    for trial in trials(process, seed):
        for identity in joint:
            identity(trial)
    laws.prior_matches(trials(process, seed)[-1], mismatch)


def _check_laws(part: Any, seed: int) -> None:
    for trial in trials(part, seed):
        for identity in OF_LAWS:
            identity(trial)


def _check_factor(process: Any, name: str, part: Any, seed: int) -> None:
    """The kernel of a product is the product of the kernels."""
    trial = trials(process, seed)[0]
    clock = trial.clock(trial.x)
    joint = process.kernel(trial.x_0, clock).site_log_prob(trial.x)
    alone = part.kernel(trial.x_0[name], clock).site_log_prob(trial.x[name])
    require_close(
        f"kernel of a product = product of kernels, factor {name!r}",
        joint[name], alone, of=process, t=trial.t,
    )  # fmt: skip


def _check_interpolant(path: Any, seed: int) -> None:
    """The velocity is the derivative of the path at fixed noise; conversions invert."""
    generator = torch.Generator().manual_seed(seed)
    x_0, x_1 = (draw_states(path.space, 4, generator) for _ in range(2))

    def at(t: float) -> Any:
        clock = torch.full((state.batch_size(x_0),), t, dtype=torch.float64)
        return path.kernel(x_0, clock, x_1), clock

    def drawn(t: float) -> torch.Tensor:
        return at(t)[0].sample(torch.Generator().manual_seed(seed + 1))

    for end, expected in ((0.0, x_0), (1.0, x_1)):
        require_close("the path ends at its endpoints", at(end)[0].mean, expected, of=path, t=end)
        spread = torch.full_like(x_0, path.sigma_min)
        require_close("the noise at the ends", at(end)[0].std, spread, of=path, t=end)
    for t in (0.15, 0.4, 0.65, 0.9):
        kernel, clock = at(t)
        velocity = kernel.target(Kind.VELOCITY, drawn(t))
        require_close("velocity = d/dt of the path", velocity, in_time(drawn, t), of=path, t=t)
        for source, target in permutations((Kind.VELOCITY, Kind.CLEAN, Kind.NOISE, Kind.SCORE), 2):
            rule = path.conversion(source, target)
            if rule is not None:
                got = rule(kernel.target(source, drawn(t)), drawn(t), clock)
                expected = kernel.target(target, drawn(t))
                require_close(f"the conversion {source} -> {target}", got, expected, of=path, t=t)
    if Capability.BRIDGE in path.provides:
        _check_pinned(path, x_0, at)


def _check_pinned(path: Any, x_0: torch.Tensor, at: Callable[[float], Any]) -> None:
    """The bridge around x_0, averaged over x_t, is the law of x_s."""
    for t, s in ((0.9, 0.4), (1.0, 0.5), (0.3, 0.0)):
        (later, clock), (earlier, target) = at(t), at(s)
        clean = Estimate(path, later.mean, clock, Kind.CLEAN, x_0)
        here, beside = (path.ancestor(later.mean + d, clock, target, clean) for d in (0, 1))
        slope = beside.mean - here.mean
        require_close("the mean of the bridge", here.mean, earlier.mean, of=path, t=t)
        variance = slope**2 * later.std**2 + here.std**2
        expected = earlier.std.expand_as(variance) ** 2
        require_close("the variance of the bridge", variance, expected, of=path, t=t)
