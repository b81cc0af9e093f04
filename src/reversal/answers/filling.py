"""Imputation: the gaps of rows, several times over."""

from __future__ import annotations

from typing import Any

import torch

from reversal.answers.drawing import draw
from reversal.core import Denoiser
from reversal.data.source import Source


def impute(
    denoiser: Denoiser,
    source: Source,
    rows: Any,
    draws: int,
    seed: int,
    steps: int,
    first: int = 0,
) -> Any:
    """Fill the gaps of rows with draws given all that is known; see ``Model.impute``.

    Where rows are some of more, `first` is the number of the first of them.
    """
    each = [source.encode(rows, seed + draw) for draw in range(draws)]
    present = each[0].present
    gaps = torch.stack([~m[..., None].flatten(1).all(1) for m in present.values()]).any(0)
    index = gaps.nonzero().squeeze(1)
    given = {
        name: (torch.cat([e.state[name][index] for e in each]), mask[index].repeat(draws, *ones))
        for name, mask in present.items()
        for ones in ([1] * (mask.ndim - 1),)
    }
    generator = torch.Generator().manual_seed(seed)
    drawn = draw(denoiser, draws * len(index), given, generator, steps)
    states = [
        {
            name: part.index_copy(0, index, drawn[name][k * len(index) :][: len(index)])
            for name, part in encoded.state.items()
        }
        for k, encoded in enumerate(each)
    ]
    return source.complete(rows, states, present, first)
