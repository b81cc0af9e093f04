r"""Where randomness comes from: one shared generator, or one counter-based stream per item.

Every draw of the library passes through this file. ``generator`` is None (torch's own), a
``torch.Generator`` (one stream, fast), a ``BatchShare`` (the rows that one process has of a batch),
or an ``ItemNoise`` (one stream per item, independent of the batch it is drawn in).
Item i's n-th draw of element j is a hash of (seed_i, n, j):

.. math:: b = h(h(h(seed_i) + n \phi) + j \phi), \qquad u = 2^{-53} \lfloor b / 2^{11} \rfloor,

with h the finalizer of SplitMix64 (Steele, Lea and Flood 2014) and phi its golden-ratio increment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from reversal.errors import SpaceError

_PHI = -7046029254386353131
_MIX_1 = -4658895280553007687
_MIX_2 = -7723592293110705685


@final
class ItemNoise:
    """One stream of randomness per item, the same in whatever batch the item is drawn.

    Args:
        seeds: B integers. Equal seeds give equal draws.

    The stream advances by one at every draw, so two runs agree when they make the same draws.
    Cost: about ten times that of a shared generator.
    """

    def __init__(self, seeds: Sequence[int] | Tensor) -> None:
        self.seeds = torch.as_tensor(seeds, dtype=torch.int64).reshape(-1)
        self.draws = 0

    def bits(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Return 64 hashed bits for each entry of ``shape``, whose first length must be B."""
        if not shape or shape[0] != len(self.seeds):
            raise SpaceError(
                f"ItemNoise has {len(self.seeds)} seeds, but a draw of shape {tuple(shape)} was "
                f"asked. Give one seed per item of the batch."
            )
        self.draws += 1
        size = 1
        for length in shape[1:]:
            size *= length
        turn = torch.full((), self.draws, dtype=torch.int64, device=device) * _PHI
        stream = _hash(_hash(self.seeds.to(device)) + turn)
        index = torch.arange(1, size + 1, device=device) * _PHI
        return _hash(stream[:, None] + index).reshape(tuple(shape))


@final
class BatchShare:
    """Some rows of a larger batch: what is drawn is what they get where the batch is drawn whole.

    Processes that hold the parts of a batch each draw for all of it, and stay in step.

    Args:
        whole: the stream of the larger batch.
        total: its number of rows.
        start: the first row of the share.
        stop: the row after its last.
    """

    def __init__(self, whole: torch.Generator, total: int, start: int, stop: int) -> None:
        self.whole, self.total, self.rows = whole, total, slice(start, stop)

    def wide(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of a draw for the larger batch; its first length is that of the share.

        Raises:
            SpaceError: if it is not.
        """
        size = self.rows.stop - self.rows.start
        if not shape or shape[0] != size:
            raise SpaceError(
                f"BatchShare has {size} rows, but a draw of shape {tuple(shape)} was asked. Give "
                f"it the rows of its share, in their order."
            )
        return (self.total, *shape[1:])


Randomness = torch.Generator | ItemNoise | BatchShare | None


def uniform(shape: Sequence[int], like: Tensor, generator: Randomness = None) -> Tensor:
    """Draw uniformly on [0, 1): dtype and device of ``like``, batch dimension first."""
    if isinstance(generator, ItemNoise):
        single = like.dtype == torch.float32
        kept = 24 if single else 53
        bits = _shift(generator.bits(shape, like.device), 64 - kept)
        return (bits.double() * 2.0**-kept).to(like.dtype)
    if isinstance(generator, BatchShare):
        return uniform(generator.wide(shape), like, generator.whole)[generator.rows]
    return torch.rand(tuple(shape), generator=generator, dtype=like.dtype, device=like.device)


def normal(shape: Sequence[int], like: Tensor, generator: Randomness = None) -> Tensor:
    """Draw standard normal variables: dtype and device of ``like``, batch dimension first."""
    if isinstance(generator, ItemNoise):
        bits = _shift(generator.bits(shape, like.device), 11)
        return torch.special.ndtri((bits.double() + 0.5) * 2.0**-53).to(like.dtype)
    if isinstance(generator, BatchShare):
        return normal(generator.wide(shape), like, generator.whole)[generator.rows]
    return torch.randn(tuple(shape), generator=generator, dtype=like.dtype, device=like.device)


def integers(
    high: int | Tensor, shape: Sequence[int], like: Tensor, generator: Randomness
) -> Tensor:
    """Draw integers uniformly on {0, ..., high - 1}; ``high`` may differ from site to site."""
    u = uniform(shape, like.new_empty((), dtype=torch.float64), generator)
    return (u * high).long()


def categorical(
    weights: Tensor, generator: Randomness = None, wanted: Tensor | None = None
) -> Tensor:
    """Draw an index with probability proportional to its weight, by inverting the sum in float64.

    Args:
        weights: not negative, not normalized, shape ``(B, *S, K)``; a row of zeros gives any.
        wanted: bool ``(B, *S)``: the rows that matter; the others give any index. On the CPU they
            cost nothing; elsewhere to pick rows would wait for the device, and all are inverted.

    Returns:
        int64 of shape ``(B, *S)``; an index of weight zero is never drawn.

    Cost: one pass over the weights for the sums of blocks of about sqrt(K), then one block. A
    float32 exponential race is off by several-fold for small weights (Zheng et al. 2024).
    """
    u = uniform(weights.shape[:-1], weights.new_empty((), dtype=torch.float64), generator)
    if wanted is None or weights.device.type != "cpu":
        return _draw(weights, u)
    rows = wanted.expand(u.shape).nonzero(as_tuple=True)
    return torch.zeros(u.shape, dtype=torch.int64).index_put(rows, _draw(weights[rows], u[rows]))


def poisson(rates: Tensor, generator: Randomness = None) -> Tensor:
    """Draw Poisson numbers, int64, of rates ``(B, *S)``; 0 where a rate is 0.

    Cost: where there is one stream per item or a share of a batch, about ten evaluations of the
    incomplete gamma function, which inverts the law exactly.
    """
    if not isinstance(generator, ItemNoise | BatchShare):
        return torch.poisson(rates.double(), generator).long()
    u = uniform(rates.shape, rates.new_empty((), dtype=torch.float64), generator)
    return _poisson_quantile(u, rates.double())


def _poisson_quantile(u: Tensor, rate: Tensor) -> Tensor:
    """The least k with P(N <= k) > u, by bisection."""
    low, high = torch.zeros_like(rate), (rate + 12 * rate.sqrt() + 40).ceil()
    for _ in range(int(high.max()).bit_length() if high.numel() else 0):
        middle = ((low + high) / 2).floor()
        above = torch.special.gammaincc(middle + 1, rate) > u
        low, high = torch.where(above, low, middle + 1), torch.where(above, middle, high)
    return high.long()


def _draw(weights: Tensor, u: Tensor) -> Tensor:
    num_states = weights.shape[-1]
    if num_states <= 512:
        return _invert(weights.double(), u)[0]
    width = 2 ** (round(num_states**0.5).bit_length())
    blocks = torch.nn.functional.pad(weights, (0, -num_states % width))
    blocks = blocks.unflatten(-1, (-1, width))
    block, rest = _invert(blocks.sum(-1, dtype=torch.float64), u)
    chosen = block[..., None, None].expand(*block.shape, 1, width)
    inside = blocks.gather(-2, chosen).squeeze(-2).double()
    return block * width + _invert(inside, rest)[0]


def _invert(weights: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Invert a cumulative sum at level u; return the index and the level left inside its cell."""
    edges = weights.cumsum(-1)
    level = u * edges[..., -1] * (1 - 2.0**-50)
    index = torch.searchsorted(edges, level[..., None], right=True).clamp_(max=edges.shape[-1] - 1)
    mass = weights.gather(-1, index)
    below = edges.gather(-1, index) - mass
    rest = ((level[..., None] - below) / mass.clamp_min(1e-300)).clamp(0.0, 1.0 - 2.0**-53)
    return index.squeeze(-1), rest.squeeze(-1)


def _shift(bits: Tensor, by: int) -> Tensor:
    """Shift to the right without carrying the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _hash(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MIX_1
    z = (z ^ _shift(z, 27)) * _MIX_2
    return z ^ _shift(z, 31)
