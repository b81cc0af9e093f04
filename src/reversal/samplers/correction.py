r"""Langevin steps on every space: :math:`L_t + K_{1,t}` in a pseudo-time of its own.

It is reversible with respect to q_t: on real spaces Langevin's equation

.. math:: dx = a \nabla \log q_t\, d\tau + \sqrt{2 a}\, dz

in the exponential chart, on finite sets jumps at the rates :math:`R(x \to y) + R(y \to x) q_t(y) /
q_t(x)`. One step over tau changes q_t by O(tau^2), so many leave a bias of O(tau). Source: Song et
al. (2021), appendix G; Campbell et al. (2022), section 4.2; Benton et al. (2024).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from reversal import state
from reversal.core import Capability, Denoiser, Path
from reversal.grids import Tick
from reversal.noise import Randomness
from reversal.samplers.needs import require
from reversal.state import Tree


def check_corrector(sampler: object, path: Path) -> None:
    """Raise ``CapabilityError`` unless the path has a generator."""
    require(
        sampler, path, {Capability.GENERATOR}, "Use Ancestral() or Heun(), without corrections."
    )


def correct(
    denoiser: Denoiser,
    x: Any,
    t: Any,
    s: Any,
    cond: Any,
    stop: Tree,
    generator: Randomness,
    times: int,
    size: float,
) -> Any:
    """Take Langevin steps at time s, each over ``size`` times the generator's time from s to t.

    Sites that are stopped, or at time 0, stand still.

    Cost: one call each; none where every site is at 0.
    """
    parts = denoiser.process.parts
    ended = state.map(_ended, parts, s)
    if all(end is True for end in state.leaves(ended)):
        return x
    held = state.complete(stop, parts) if state.branches(parts) else stop
    move = partial(_move, generator, size)
    for _ in range(times):
        forward, score = denoiser.process.forward(x, s), denoiser(x, s, cond).score
        x = state.map(move, parts, x, t, s, forward, score, held, ended)
    return x


def _ended(path: Any, s: Any) -> Any:
    return s.time == 0 if isinstance(s, Tick) else path.space.align(s) == 0


def _move(
    generator: Randomness,
    size: float,
    path: Any,
    x: Tensor,
    t: Any,
    s: Any,
    forward: Any,
    score: Tensor,
    stop: Any,
    ended: Any,
) -> Tensor:
    if ended is True:
        return x
    sites = len(path.space.sites)
    length = _length(path, t, s)
    law = forward.scaled(size * length, sites).corrector(score)
    moved = state.hold(stop, x, law.step(path.noisy_space, x, generator), sites)
    return (
        moved
        if ended is False
        else state.hold(ended.expand(moved.shape[: 1 + sites]), x, moved, sites)
    )


def _length(path: Any, t: Any, s: Any) -> Any:
    if isinstance(t, Tick) and isinstance(s, Tick):
        return t.time - s.time
    return path.space.align(t) - path.space.align(s)
