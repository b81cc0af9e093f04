"""The likelihood of rows in the caller's units, with its error."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reversal.answers.drawing import chunk_of
from reversal.answers.methods import Method
from reversal.core import Denoiser
from reversal.data.source import Encoded, Source
from reversal.likelihood import Likelihood
from reversal.training.distributed import current


def log_prob(
    denoiser: Denoiser, source: Source, rows: Any, method: Method, seed: int
) -> Likelihood:
    """Score rows in the caller's units; see ``Model.log_prob``."""
    method.check(source)
    generator = torch.Generator().manual_seed(seed)
    draws, running = [], torch.zeros(())
    for encoded in method.encodings(source, rows, seed):
        value, stderr, bias = _scored(denoiser, encoded, method, generator)
        value = value + source.log_jacobian(encoded)
        draws.append(Likelihood(value, stderr, bias, "", source.measure))
        running = _running(source, encoded)
    return method.joined(source, draws, running)


def _running(source: Source, encoded: Encoded) -> Tensor:
    """The number of real dimensions that are present in each row, ``(B,)``."""
    parts = {name: part for name, part in source.space.parts.items() if part.is_real}
    each = {k: math.prod(p.tangent_shape) // math.prod(p.sites) for k, p in parts.items()}
    counts = [encoded.present[name][:, None].flatten(1).sum(1) * each[name] for name in parts]
    return torch.stack(counts).sum(0) if counts else torch.zeros(())


def _scored(
    denoiser: Denoiser, encoded: Encoded, method: Method, generator: torch.Generator
) -> Tensor:
    """Value, error and bias of each encoded row, ``(3, B)``; each process scores its share."""
    size, world = chunk_of(denoiser.process.space), current()
    n = len(next(iter(encoded.state.values())))
    complete = all(bool(mask.all()) for mask in encoded.present.values())
    values = []
    for start in range(0, max(n, 1), size):
        count = min(size, n - start)
        own = world.share(count)
        rows = slice(start + own.start, start + own.stop)
        part = Encoded(*({k: values[rows] for k, values in tree.items()} for tree in encoded))
        observed = None if complete else part.present
        found = method.score(denoiser, part, observed, world.noise(generator, count))
        bias = torch.as_tensor(found.bias).expand(len(found.value))
        columns = torch.stack([found.value, found.stderr, bias.to(found.value)], 1)
        values.append(world.joined(columns, count))
    return torch.cat(values).T
