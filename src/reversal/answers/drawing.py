"""Samples in the form of the data, given values, ranges and sets of any columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from reversal.answers.support import lift
from reversal.core import Denoiser, Sampler
from reversal.data.source import Source
from reversal.restrictions import Evidence, restricted
from reversal.restrictions.sequential import probability
from reversal.samplers import Multistep
from reversal.training.distributed import current

CHUNK: Final = 4096
"""How many items are sampled at once, at most."""
NUMBERS: Final = 2**25
"""How many numbers the estimate of one chunk holds, about."""

Given = Mapping[str, tuple[Tensor, Tensor]]
OnStep = Callable[[int, Any], None]


def chunk_of(space: Any) -> int:
    """Return how many items are handed to a denoiser at once."""
    sizes = [
        torch.Size(part.sites).numel() * getattr(part, "num_states", 3)
        for part in space.parts.values()
    ]
    return min(CHUNK, max(1, NUMBERS // sum(sizes)))


def sample(
    denoiser: Denoiser,
    source: Source,
    n: int,
    given: Any,
    seed: int,
    steps: int,
    *,
    sampler: Sampler | None = None,
    missing: bool = False,
    on_step: OnStep | None = None,
    on_evidence: Callable[[Evidence], None] | None = None,
) -> Any:
    """Draw n items; see ``Model.sample``."""
    conditions = {} if given is None else given
    known: Given = {} if given is None else source.given(given, n)
    restrictions = () if given is None else source.restrictions(given)
    evidence = Evidence(1.0, 0.0, 0, 0.0, 1.0 if given is None else lift(denoiser, source, given))
    generator = torch.Generator().manual_seed(seed)
    if restrictions:
        size = chunk_of(denoiser.process.space)
        context, found = restricted(
            denoiser, n, restrictions, known or None, generator, largest_call=size
        )
        known, evidence = context.given, replace(found, lift=evidence.lift)
    if on_evidence is not None and given is not None:
        on_evidence(evidence)
    drawn = draw(denoiser, n, known, generator, steps, sampler, on_step)
    samples = source.decode(drawn, seed if missing else None, conditions)
    return samples if given is None else source.write_given(samples, given)


def probability_of(
    denoiser: Denoiser, source: Source, given: Any, seed: int, draws: int
) -> Evidence:
    """Estimate how probable ranges and sets are; see ``Model.probability``."""
    return probability(
        denoiser,
        source.restrictions(given),
        source.given(given, 1) or None,
        draws,
        torch.Generator().manual_seed(seed),
        chunk_of(denoiser.process.space),
    )


def draw(
    denoiser: Denoiser,
    n: int,
    given: Given,
    generator: torch.Generator,
    steps: int,
    sampler: Sampler | None = None,
    on_step: OnStep | None = None,
) -> dict[str, Tensor]:
    """Sample n states in chunks from one stream; ``given`` has one row or n of them.

    Processes that answer together sample a share of each chunk.
    """
    sampler, world = Multistep() if sampler is None else sampler, current()
    size = chunk_of(denoiser.process.space)
    chunks = []
    for start in range(0, max(n, 1), size):
        count = min(size, n - start)
        own = world.share(count)
        rows = slice(start + own.start, start + own.stop)
        part = {k: (_rows(v, rows, n), _rows(m, rows, n)) for k, (v, m) in given.items()}
        drawn = sampler.sample(
            denoiser,
            own.stop - own.start,
            steps=steps,
            given=part or None,
            generator=world.noise(generator, count),
            on_step=on_step,
        )
        chunks.append({name: world.joined(value, count) for name, value in drawn.items()})
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _rows(values: Tensor, rows: slice, n: int) -> Tensor:
    return values[rows] if len(values) == n else values
