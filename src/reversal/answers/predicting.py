"""The conditional law of one discrete site, in one network call per item, or four.

A rounded number, and one that repeats, stands at a random place of its cell. An exact model knows
that the place says nothing; of a trained one the mean over places is taken.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch

from reversal.answers.drawing import chunk_of
from reversal.core import Denoiser
from reversal.data.source import Encoded, Source
from reversal.restrictions import Context, Site

PLACES: Final = 4
"""How many random places of its rounded numbers each row is seen at."""


@torch.no_grad()
def predict_proba(denoiser: Denoiser, source: Source, rows: Any, target: str) -> Any:
    """Return p(target | all other entries) of every row; see ``Model.predict_proba``."""
    found = source.target(target)
    site, others = Site(found.factor, found.place), source.without(rows, target)
    seen = [source.encode(others, seed) for seed in range(PLACES)]
    if all(torch.equal(x, seen[0].state[name]) for s in seen[1:] for name, x in s.state.items()):
        seen = seen[:1]
    laws = [_law(denoiser, encoded, site)[:, : found.num_values] for encoded in seen]
    return source.probabilities(target, np.mean(laws, axis=0), rows)


def _law(denoiser: Denoiser, encoded: Encoded, site: Site) -> np.ndarray:
    """Return the law of a site given all that is present, ``(B, K)``."""
    given = {name: (encoded.state[name], encoded.present[name]) for name in encoded.state}
    n = len(encoded.state[site.factor])
    generator = torch.Generator().manual_seed(0)
    size, at = chunk_of(denoiser.process.space), (slice(None), *site.place)
    laws = []
    for start in range(0, max(n, 1), size):
        part = {
            k: (v[start : start + size], m[start : start + size]) for k, (v, m) in given.items()
        }
        context = Context.of(denoiser, min(size, n - start), part, generator)
        laws.append(context.look(site, 1.0).posterior[at].softmax(-1).double().numpy())
    return np.concatenate(laws)
