"""The conditional law of one discrete site, in one network call per item."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from reversal.answers.drawing import chunk_of
from reversal.core import Denoiser
from reversal.data.source import Source
from reversal.restrictions import Context, Site


@torch.no_grad()
def predict_proba(denoiser: Denoiser, source: Source, rows: Any, target: str) -> Any:
    """Return p(target | all other entries) of every row; see ``Model.predict_proba``."""
    found = source.target(target)
    site = Site(found.factor, found.place)
    encoded = source.encode(source.without(rows, target))
    given = {name: (encoded.state[name], encoded.present[name]) for name in encoded.state}
    n = len(encoded.state[site.factor])
    generator = torch.Generator().manual_seed(0)
    size, at = chunk_of(denoiser.process.space), (slice(None), *site.place)
    values = [np.zeros((0, found.num_values))]
    for start in range(0, n, size):
        part = {
            k: (v[start : start + size], m[start : start + size]) for k, (v, m) in given.items()
        }
        context = Context.of(denoiser, min(size, n - start), part, generator)
        logits = context.look(site, 1.0).posterior[at][:, : found.num_values]
        values.append(logits.softmax(-1).double().numpy())
    return source.probabilities(target, np.concatenate(values), rows)
