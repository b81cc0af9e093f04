"""The likelihood of rows in the caller's units, with its error."""

from __future__ import annotations

from typing import Any, Final

import torch

from reversal.answers.drawing import chunk_of
from reversal.core import Denoiser
from reversal.data.source import Encoded, Source
from reversal.likelihood import Likelihood, elbo
from reversal.training.distributed import current

DITHERS: Final = 8
"""How many times the encoding of rounded numbers is drawn anew in a likelihood."""


def log_prob(
    denoiser: Denoiser, source: Source, rows: Any, num_samples: int, seed: int
) -> Likelihood:
    """Bound the log-density of every row from below; see ``Model.log_prob``."""
    generator = torch.Generator().manual_seed(seed)
    each = max(2, num_samples // DITHERS)
    values = []
    for dither in range(DITHERS):
        encoded = source.encode(rows, seed + dither)
        bound = _bound(denoiser, encoded, each, generator)
        values.append(bound + source.log_jacobian(encoded))
    draws = torch.stack(values)
    stderr = draws.var(0).sqrt() / DITHERS**0.5 if draws.numel() else draws[0]
    return Likelihood(draws.mean(0), stderr, 0.0, "lower bound", source.measure)


def _bound(
    denoiser: Denoiser, encoded: Encoded, num_samples: int, generator: torch.Generator
) -> torch.Tensor:
    """Return the bound of each encoded row, in chunks of which each process has a share."""
    size, world = chunk_of(denoiser.process.space), current()
    n = len(next(iter(encoded.state.values())))
    complete = all(bool(mask.all()) for mask in encoded.present.values())
    values = []
    for start in range(0, max(n, 1), size):
        count = min(size, n - start)
        own = world.share(count)
        rows = slice(start + own.start, start + own.stop)
        state, present = ({k: part[rows] for k, part in tree.items()} for tree in encoded)
        bound = elbo(
            denoiser,
            state,
            observed=None if complete else present,
            num_samples=num_samples,
            generator=world.noise(generator, count),
        )
        values.append(world.joined(bound.value, count))
    return torch.cat(values)
