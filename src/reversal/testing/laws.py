r"""Identities of kernels: normalized, Chapman-Kolmogorov, Bayes, score, and draws that follow them.

.. math:: \int q_s(z | x_0)\, q_{t|s}(x | z)\, dz = q_t(x | x_0), \qquad
   q(x_s | x_0, x_t) = \frac{q_s(x_s | x_0)\, q_{t|s}(x_t | x_s)}{q_t(x_t | x_0)} .

Each is checked site by site on one factor: by enumeration of the codes on finite sets, by
quadrature on spaces that have a rule.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reversal import state
from reversal.core import Capability
from reversal.testing.comparison import require, require_close
from reversal.testing.quadrature import rule_of
from reversal.testing.statistics import require_frequencies, require_mean, require_uniform
from reversal.testing.stencils import every_code, repeated
from reversal.testing.trial import Trial

_DRAWS = 4000
_LATE = 0.6
_LAST = -23 * math.log(2)


def kernel_starts_at_data(trial: Trial) -> None:
    """q_0(. | x_0) is a point mass at x_0."""
    clock = trial.clock(trial.x_0, 0.0)
    got = trial.process.kernel(trial.x_0, clock).sample(trial.generator)
    require_close("x_t = x_0 at t = 0", got, trial.x_0, of=trial.process, t=0.0, tolerance=1e-5)


def kernel_is_normalized(trial: Trial) -> None:
    """The density of the kernel integrates to one."""
    path, x_0 = trial.process, trial.x_0
    nodes, logs = _nodes(trial, path.kernel(*_many(trial, x_0)))
    if nodes is None or not (trial.t > _LATE or not path.space.is_real):
        return
    x_0_wide, nodes_wide, logs_wide = _cross(x_0, nodes, logs)
    density = path.kernel(x_0_wide, trial.clock(x_0_wide)).site_log_prob(nodes_wide)
    mass = _integrate(density + logs_wide, len(x_0))
    require_close("kernel: total mass = 1", mass.exp(), torch.ones(()), of=path, t=trial.t)


def chapman_kolmogorov(trial: Trial) -> None:
    """Transition after kernel is kernel."""
    path, x_0, x = trial.process, trial.x_0, trial.x
    if path.space.is_real and trial.t < _LATE:
        return
    mass, kernel = [], path.kernel(x_0, trial.clock(x_0)).site_log_prob(x)
    for row in range(len(x)):
        one, other = x_0[row : row + 1], x[row : row + 1]
        law = path.bridge(*_copies(_DRAWS // 10, one, other), *_clocks(trial, _DRAWS // 10))
        nodes, logs = _nodes(trial, law)
        if nodes is None:
            return
        count = len(nodes)
        s, t = _clocks(trial, count)
        there = path.kernel(repeated(one, count), s).site_log_prob(nodes)
        onward = path.transition(nodes, s, t).site_log_prob(repeated(other, count))
        mass.append(torch.logsumexp(there + onward + logs, 0))
    require_close(
        "Chapman-Kolmogorov", torch.stack(mass), kernel, of=path, t=trial.t, size=kernel.abs()
    )


def bridge_is_bayes(trial: Trial) -> None:
    """q(x_s | x_0, x_t) = q(x_s | x_0) q(x_t | x_s) / q(x_t | x_0)."""
    path, x_0, x = trial.process, trial.x_0, trial.x
    s, t = trial.clock(x, trial.s), trial.clock(x)
    if path.space.is_real:
        points = [path.bridge(x_0, x, s, t).sample(trial.generator) for _ in range(3)]
        points += [path.kernel(x_0, s).sample(trial.generator)]
    else:
        codes, _ = every_code(path.noisy_space)
        points = [code.expand_as(x) for code in codes]
    for z in points:
        bayes = path.kernel(x_0, s).site_log_prob(z) + path.transition(z, s, t).site_log_prob(x)
        bayes = bayes - path.kernel(x_0, t).site_log_prob(x)
        got = path.bridge(x_0, x, s, t).site_log_prob(z)
        size = bayes.abs()
        if not path.space.is_real:
            got, bayes, size = got.exp(), bayes.exp(), torch.zeros(())
        require_close("bridge = Bayes' rule", got, bayes, of=path, t=trial.t, size=size)


def score_is_derivative(trial: Trial) -> None:
    """The score of the kernel and of the bridge is the gradient, or the log-ratio, of log_prob."""
    path, x_0 = trial.process, trial.x_0
    s, t = trial.clock(x_0, trial.s), trial.clock(x_0)
    kernel = path.kernel(x_0, t)
    if not path.space.is_real:
        codes, allowed = every_code(path.noisy_space)
        logs = [kernel.site_log_prob(code.expand_as(trial.x)) for code in codes]
        ratio = (torch.stack(logs, -1) - kernel.site_log_prob(trial.x)[..., None]).exp()
        ratio = torch.where(allowed.movedim(0, -1), ratio, 0.0)
        require_close(
            "score = log-ratio of log_prob",
            kernel.score(trial.x).exp(), ratio, of=path, t=trial.t, size=ratio,
        )  # fmt: skip
        return
    bridge_at = path.bridge(x_0, trial.x, s, t).sample(trial.generator)
    moves = trial.moves("")
    _gradient(trial, moves, path.kernel(repeated(x_0, _times(moves)), _wide(t, moves)), kernel)
    near = trial.moves_around(bridge_at, "")
    wide = path.bridge(
        *(repeated(part, _times(near)) for part in (x_0, trial.x)), _wide(s, near), _wide(t, near)
    )
    here = path.bridge(x_0, trial.x, s, t)
    got, gradient = here.score(bridge_at), near.gradient(wide.log_prob(near.points))
    require_close(
        "bridge score = gradient of log_prob",
        got.reshape(gradient.shape), gradient,
        of=path, t=trial.t, size=gradient.abs().max(), tolerance=1e-7,
    )  # fmt: skip


def _gradient(trial: Trial, moves: Any, wide: Any, kernel: Any) -> None:
    gradient = moves.gradient(wide.log_prob(moves.points))
    require_close(
        "score = gradient of log_prob", kernel.score(trial.x).reshape(gradient.shape), gradient,
        of=trial.process, t=trial.t, size=gradient.abs(),
    )  # fmt: skip


def draws_follow_laws(trial: Trial) -> None:
    """Draws of the kernel, the transition and the bridge follow their own densities."""
    path = trial.process
    row = len(trial.x) - 1
    x_0, x = trial.x_0[row : row + 1], trial.x[row : row + 1]
    x_0, x = _copies(_DRAWS, x_0, x)
    s, t = _clocks(trial, _DRAWS)
    laws = [("kernel", path.kernel(x_0, t)), ("transition", path.transition(x_0, s, t))]
    if Capability.BRIDGE in path.provides:
        laws.append(("bridge", path.bridge(x_0, x, s, t)))
    for word, law in laws:
        what = f"draws of the {word} of {path} at t = {trial.t:g}"
        draws = law.sample(trial.generator)
        require(
            bool(path.noisy_space.contains(draws).all()),
            f"{what}: some lie outside {path.noisy_space}.",
        )
        (_stein if path.space.is_real else _chi_square)(trial, law, draws, what)


def _chi_square(trial: Trial, law: Any, draws: Tensor, what: str) -> None:
    codes, allowed = every_code(trial.process.noisy_space)
    flat = draws.reshape(len(draws), -1)
    for site in range(flat.shape[1]):
        logs = [law.site_log_prob(code.expand_as(draws)) for code in codes]
        probs = torch.stack([log[0].reshape(-1)[site] for log in logs]).exp()
        probs = torch.where(allowed.reshape(len(codes), -1)[:, site], probs, 0.0)
        counts = torch.bincount(flat[:, site], minlength=len(codes))
        require_frequencies(counts, probs, of=f"{what}, site {site}")


def _stein(trial: Trial, law: Any, draws: Tensor, what: str) -> None:
    """Stein's identities E[score_i] = 0 and E[score_i^2 + E_i score_i] = 0, then the distribution.

    The distribution function is checked where a site has one coordinate.
    """
    score = law.score(draws).reshape(len(draws), -1)
    require_mean(score, 0.0, of=f"{what}: E[score] = 0")
    step = 1e-3 / float(score.square().mean().sqrt().clamp_min(1e-3))
    frame = step * torch.eye(score.shape[1], dtype=draws.dtype)
    slopes = []
    for column, v in enumerate(frame):
        shift = v.reshape(trial.process.space.tangent_shape).expand(
            len(draws), *trial.process.space.tangent_shape
        )
        ends = [
            law.score(trial.process.space.move(draws, sign * shift)).reshape(score.shape)[:, column]
            for sign in (1, -1)
        ]
        slopes.append((ends[0] - ends[1]) / (2 * step))
    require_mean(score**2 + torch.stack(slopes, 1), 0.0, of=f"{what}: E[score^2 + div score] = 0")
    _distribution(trial, law, draws, what)


def _distribution(trial: Trial, law: Any, draws: Tensor, what: str) -> None:
    rule = rule_of(trial.process.space)
    if rule is None or not rule.is_ordered:
        return
    nodes, logs = rule.nodes(trial.process.space, draws)
    count = len(nodes)
    padded = torch.cat([nodes, nodes[-1:].expand(max(0, len(draws) - count), *nodes.shape[1:])])
    density = law.site_log_prob(padded)[:count] + logs
    mass = density.exp().reshape(count, -1)
    edges = mass.cumsum(0) - mass / 2
    grid, values = nodes.reshape(count, -1), draws.reshape(len(draws), -1)
    levels = [
        _interpolate(grid[:, d].contiguous(), edges[:, d], values[:, d].contiguous())
        for d in range(values.shape[1])
    ]
    require_uniform(torch.stack(levels, 1).clamp(0, 1), of=what)


def prior_matches(trial: Trial, mismatch: float) -> None:
    r"""KL(q_1 | prior) per site is at most ``mismatch`` nats for every atom alone, hence for all.

    On finite sets by enumeration, leaving out masses below 2^-23, the resolution of the last
    running time; elsewhere by draws of :math:`r - 1 - \log r`, r = prior / q_1.
    """
    for name in trial.names:
        path, atoms = (state.take(v, name) for v in (trial.process.parts, trial.atoms))
        kernel, prior = path.kernel(atoms, trial.clock(atoms, 1.0)), path.prior
        if path.space.is_real:
            many = repeated(atoms, 700)
            kernel = path.kernel(many, trial.clock(many, 1.0))
            x = kernel.sample(trial.generator)
            log_ratio = prior.site_log_prob(x) - kernel.site_log_prob(x)
            gap = (torch.expm1(log_ratio) - log_ratio).mean()
        else:
            codes, allowed = every_code(path.noisy_space)
            gap = torch.zeros((), dtype=torch.float64)
            for code, legal in zip(codes, allowed, strict=True):
                log_q = kernel.site_log_prob(code.expand_as(atoms))
                log_ratio = log_q - prior.site_log_prob(code.expand_as(atoms))
                term = torch.where(legal & (log_q > _LAST), log_q.exp() * log_ratio, 0.0)
                gap = gap + term.mean()
        require(
            bool(gap <= mismatch),
            f"the prior of {path} fails: KL(q_1 | prior) is {float(gap):.3g} nats per site for "
            f"data of unit variance, more than {mismatch:.3g}. Choose a schedule that ends later.",
        )


def _interpolate(grid: Tensor, levels: Tensor, values: Tensor) -> Tensor:
    right = torch.searchsorted(grid, values).clamp(1, len(grid) - 1)
    share = (values - grid[right - 1]) / (grid[right] - grid[right - 1])
    return levels[right - 1] + share.clamp(0, 1) * (levels[right] - levels[right - 1])


def _nodes(trial: Trial, law: Any) -> tuple[Any, Any]:
    """All codes with weight one, or the nodes of the space's rule around draws of the law."""
    path = trial.process
    if not path.space.is_real:
        codes, allowed = every_code(path.noisy_space)
        return codes, allowed.double().log()
    rule = rule_of(path.space)
    return (None, None) if rule is None else rule.nodes(path.space, law.sample(trial.generator))


def _many(trial: Trial, x_0: Tensor) -> tuple[Tensor, Tensor]:
    wide = repeated(x_0, 100)
    return wide, trial.clock(wide)


def _cross(x_0: Tensor, nodes: Tensor, logs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x_0.repeat_interleave(len(nodes), 0),
        repeated(nodes, len(x_0)),
        repeated(logs, len(x_0)),
    )


def _integrate(logs: Tensor, items: int) -> Tensor:
    return logs.reshape(items, -1, *logs.shape[1:]).logsumexp(1)


def _copies(count: int, *rows: Tensor) -> list[Tensor]:
    return [row.repeat(count, *[1] * (row.ndim - 1)) for row in rows]


def _clocks(trial: Trial, count: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.full((count,), at, dtype=torch.float64) for at in (trial.s, trial.t))  # pyright: ignore


def _times(moves: Any) -> int:
    return 8 * moves.tangents


def _wide(clock: Tensor, moves: Any) -> Tensor:
    return clock.repeat(_times(moves))
