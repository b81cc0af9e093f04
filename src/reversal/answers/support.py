r"""Whether given values occur together, as far as the model can tell.

.. math:: \text{lift} = \frac{P(c_1, ..., c_k \mid e)}{P(c_1 \mid e) \cdots P(c_k \mid e)}

for given codes c and given numbers e: 1 if they are independent, about 0 if they exclude one
another.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

from reversal.core import Denoiser
from reversal.data.source import Source
from reversal.errors import DataError
from reversal.restrictions import Context
from reversal.restrictions.sequential import sweep

LEAST_LIFT: Final = 1e-4
LEAST_PROB: Final = 1e-6


@torch.no_grad()
def lift(denoiser: Denoiser, source: Source, given: Any) -> float:
    """Return the lift of the codes among given values; 1 where there are fewer than two.

    Raises:
        DataError: if they are nearly impossible together, though not one by one.

    Cost: two network calls of one item per code.
    """
    codes, known = source.events(given)
    if len(codes) < 2:
        return 1.0
    generator = torch.Generator().manual_seed(0)
    first = Context.of(denoiser, 1, known or None, generator)
    for code in codes:
        first.refuse(code.site)
    apart = sum(float(code.log_prob(first)[0]) for code in codes)
    together = float(sweep(first, codes, generator)[1][0])
    found = math.exp(together - apart) if together > -math.inf else 0.0
    if found < LEAST_LIFT and together < math.log(LEAST_PROB):
        raise DataError(
            f"Expected given values that occur together, got some whose probability under the "
            f"model is {math.exp(together):.1g}, {found:.1g} of what they would have by chance: "
            f"there is no support for an answer. Leave one of them out."
        )
    return found
