r"""What a sampler must satisfy on any process: with the oracle it returns the atoms by weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reversal import state
from reversal.core import Capability, Process, Sampler
from reversal.denoisers import Empirical
from reversal.noise import ItemNoise
from reversal.testing.comparison import require, require_close
from reversal.testing.statistics import require_frequencies
from reversal.testing.trial import WEIGHTS, draw_states

_FEW = 8
_SHARE = 0.5


def check_sampler(
    sampler: Sampler, process: Process, *, steps: int = 100, n: int = 2000, seed: int = 0
) -> None:
    """Check a sampler with the exact denoiser of three weighted atoms.

    Draws recover the atoms by their weights, from an exact x_1 (chi-square, failure rate 1e-4);
    stopped sites keep every bit; equal generators give equal samples; an item's sample does not
    depend on its batch (``ItemNoise``, to 1e-10); an empty batch is legal; float32 stays float32;
    on a plain process ticks and tensors of times give the same step.

    Args:
        sampler: what to check.
        process: any path with a prior; a sampler that lacks something raises ``CapabilityError``.
        steps: enough for the sampler's bias to stay below the resolution of n draws.
        n: the number of draws.
        seed: of all draws.

    Raises:
        AssertionError: saying what failed and by how much.
        CapabilityError: if the process lacks what the sampler needs.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    oracle = Empirical(process, draw_states(process.space, len(WEIGHTS), generator), weights)
    _recovers_atoms(sampler, oracle, steps, n, generator)
    _keeps_stopped_sites(sampler, oracle, generator)
    _repeats(sampler, oracle, seed)
    _keeps_dtype(sampler, oracle)
    if Capability.GENERATOR in process.provides and not process.factors:
        _reads_tensors_as_ticks(sampler, oracle, seed)


def _recovers_atoms(
    sampler: Sampler, oracle: Empirical, steps: int, n: int, generator: torch.Generator
) -> None:
    process, weights = oracle.process, oracle.log_weights.exp()
    chosen = torch.multinomial(weights, n, replacement=True, generator=generator)
    start = state.map(lambda part: part[chosen], oracle.atoms)
    clock = torch.ones(n, dtype=torch.float64)
    x_1 = process.kernel(start, clock).sample(generator)
    x = sampler.sample(oracle, n, steps, x_1=x_1, generator=generator)
    first = _first_equal(oracle.atoms)
    counts = torch.bincount(first[nearest(oracle, x)], minlength=len(weights))
    law = torch.zeros_like(weights).scatter_add(0, first, weights)
    require_frequencies(counts, law, of=f"atoms returned by {sampler} under {process}")


def nearest(oracle: Empirical, x: Any) -> Tensor:
    """The atom of each state by the oracle's own weights at the end of the grid, ``(B,)``."""
    times = state.map(lambda path: path.grid(20).times[-2], oracle.process.parts)
    early = max(float(t) for t in state.leaves(times))
    clock = torch.full((state.batch_size(x),), early, dtype=torch.float64)
    return oracle.weights(x, clock).argmax(1)


def _first_equal(atoms: Any) -> Tensor:
    """The first atom that each atom equals: atoms of a small finite set may coincide."""
    same = [(a[:, None] == a[None]).flatten(2).all(2) for a in _with_axis(atoms)]
    return torch.stack(same).all(0).int().argmax(1)


def _with_axis(atoms: Any) -> list[Tensor]:
    return [part[..., None] for part in state.leaves(atoms)]


def _keeps_stopped_sites(sampler: Sampler, oracle: Empirical, generator: torch.Generator) -> None:
    process = oracle.process
    x = process.prior.sample(_FEW, generator, oracle.like)
    t, s = (_tick(process, row) for row in (1, 2))

    def mask(part: Any) -> Tensor:
        return torch.rand(_FEW, *part.sites, generator=generator) < _SHARE

    stop = state.map(mask, process.space.parts)
    moved = sampler.step(oracle, x, t, s, stop=stop, generator=generator)
    for old, new, held, lift in zip(
        *(state.leaves(tree) for tree in (x, moved, stop, process.space.lift)), strict=True
    ):
        same = torch.where(state.trail(held, lift), new, old) == old
        require(bool(same.all()), f"{sampler} under {process}: a stopped site has moved.")


def _repeats(sampler: Sampler, oracle: Empirical, seed: int) -> None:
    first, again = (
        sampler.sample(oracle, _FEW, 5, generator=torch.Generator().manual_seed(seed))
        for _ in range(2)
    )
    _require_same(f"{sampler}: equal generators give equal samples", first, again, oracle, 0.0)
    items = torch.arange(_FEW)
    whole = sampler.sample(oracle, _FEW, 5, generator=ItemNoise(items))
    half = sampler.sample(oracle, _FEW // 2, 5, generator=ItemNoise(items[_FEW // 2 :]))
    part = state.map(lambda x: x[_FEW // 2 :], whole)
    _require_same(f"{sampler}: a sample does not depend on its batch", half, part, oracle, 1e-10)
    empty = sampler.sample(oracle, 0, 5, generator=torch.Generator().manual_seed(seed))
    require(state.batch_size(empty) == 0, f"{sampler}: n = 0 should give an empty batch.")


def _keeps_dtype(sampler: Sampler, oracle: Empirical) -> None:
    def single(part: Tensor) -> Tensor:
        return part.float() if part.is_floating_point() else part

    small = Empirical(oracle.process, state.map(single, oracle.atoms))
    x = sampler.sample(small, 2, 5, generator=torch.Generator().manual_seed(0))
    for part, atom in zip(state.leaves(x), state.leaves(small.atoms), strict=True):
        require(
            part.dtype == atom.dtype and bool(torch.isfinite(part).all()),
            f"{sampler} under {oracle.process}: expected finite samples of {atom.dtype}, got "
            f"{part.dtype}.",
        )


def _reads_tensors_as_ticks(sampler: Sampler, oracle: Empirical, seed: int) -> None:
    process = oracle.process
    x = process.prior.sample(_FEW, torch.Generator().manual_seed(seed), oracle.like)
    ticks = [_tick(process, row) for row in (1, 2)]
    tensors = [
        state.map(lambda tick: torch.full((_FEW,), float(tick), dtype=torch.float64), tick)
        for tick in ticks
    ]
    by_tick, by_tensor = (
        sampler.step(oracle, x, t, s, generator=torch.Generator().manual_seed(seed))
        for t, s in (ticks, tensors)
    )
    _require_same(f"{sampler}: tensors of times act as ticks", by_tick, by_tensor, oracle, 1e-9)


def _tick(process: Any, row: int) -> Any:
    return state.map(lambda path: path.grid(5).ticks()[row], process.parts)


def _require_same(sentence: str, got: Any, expected: Any, oracle: Any, tolerance: float) -> None:
    for one, other in zip(state.leaves(got), state.leaves(expected), strict=True):
        require_close(sentence, one, other, of=oracle.process, tolerance=tolerance)
