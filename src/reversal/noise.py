r"""Where randomness comes from: one shared generator, or one counter-based stream per item.

Every draw of the library passes through this file. ``generator`` is None (torch's own), a
``torch.Generator`` (one stream, fast), a ``BatchShare`` (the rows that one process has of a batch),
an ``ItemNoise`` (one stream per item, independent of the batch it is drawn in), or a
``BrownianPath`` (one path per item, the same however many steps walk it).
Item i's n-th draw of element j is a hash of (seed_i, n, j):

.. math:: b = h(h(h(seed_i) + n \phi) + j \phi), \qquad u = 2^{-53} \lfloor b / 2^{11} \rfloor,

with h the finalizer of SplitMix64 (Steele, Lea and Flood 2014) and phi its golden-ratio increment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Self, final

import torch
from torch import Tensor

from reversal.errors import SpaceError

_PHI = -7046029254386353131
_MIX_1 = -4658895280553007687
_MIX_2 = -7723592293110705685
_KEYS = 40
_LEAVES = 1 << 60


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
class BrownianPath:
    r"""One Brownian path per item: normal draws inside a step are its increments over the step.

    Refine the grid, and the sample converges to that of this path. In the clock
    :math:`u = t^{1/3}`,

    .. math:: W(u) = u Z_0 + \sum_{l < D} 2^{-l/2} \min(v_l, 1 - v_l)\, Z_{l, k_l}
       + 2^{-D/2} \sqrt{v_D (1 - v_D)}\, Z_u, \qquad k_l = \lfloor 2^l u \rfloor, \quad
       v_l = 2^l u - k_l,

    with independent normal Z, hashed from the seed, the element and the node (l, k) or u. The last
    term is the bridge inside a cell of length 2^-D: at times of which no two lie in one cell W is a
    Brownian motion exactly, and so increments over different steps are independent and normal. They
    come in units of their standard deviation. The n-th normal draw inside a step belongs to the
    n-th path. What is drawn outside a step, uniform numbers, and steps inside one cell come from an
    ``ItemNoise`` with the same seeds. On a product with a grid per factor the clock is the first
    factor's.

    Args:
        seeds: B integers, one per item.
        depth: D; more than 2^D steps are not told apart.

    Cost: on a grid of N steps about D - log2(N) draws of half an ``ItemNoise`` a step.
    Source: Levy (1948), Ciesielski (1961) for the series.
    """

    def __init__(self, seeds: Sequence[int] | Tensor, depth: int = 12) -> None:
        if not isinstance(depth, int) or not 1 <= depth <= 30:
            raise SpaceError(f"Expected a depth from 1 to 30, got {depth!r}. Leave it out for 12.")
        self.items, self.depth = ItemNoise(seeds), depth
        self._ends: tuple[Any, Any] | None = None
        self._paths: dict[Any, _Path] = {}
        self._drawn = 0

    @classmethod
    def drawn(cls, n: int, generator: torch.Generator | None = None, depth: int = 12) -> Self:
        """Draw the seeds of n paths."""
        return cls(torch.randint(2**62, (n,), generator=generator), depth)

    def over(self, t: Any, s: Any) -> BrownianPath:
        """Return the same paths bound to the step from t to s; a sampler's step does this."""
        if self._ends is not None and self._ends[0] is t and self._ends[1] is s:
            return self
        bound = copy(self)
        bound._ends, bound._drawn = (t, s), 0
        return bound

    def resolves(self, t: Tensor, s: Tensor) -> Tensor:
        """Tell for which rows, ``(B,)``, t and s lie in different cells of the clock."""
        ends = (self._key(end, 1) >> (_KEYS - self.depth) for end in (t, s))
        return torch.ne(*ends)

    def increment(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return the next path's increment over the step, in standard deviations."""
        if self._ends is None:
            return normal(shape, like, self.items)
        self._drawn += 1
        key = (self._drawn, tuple(shape), like.device)
        if key not in self._paths:
            self._paths[key] = _Path(self.items, self.depth, self._drawn, shape, like.device)
        late, early = (self._key(end, len(shape)) for end in self._ends)
        path, cell = self._paths[key], _KEYS - self.depth
        gap = path.at(late) - path.at(early)
        length, alone = late - early, (late >> cell) == (early >> cell)
        if not isinstance(length, Tensor):
            if alone:
                return normal(shape, like, self.items)
            return (gap * (2**_KEYS / abs(length)) ** 0.5).to(like.dtype)
        scaled = gap * (2**_KEYS / length.abs().clamp_min(1).double()).sqrt()
        return torch.where(alone, normal(shape, like, self.items), scaled.to(like.dtype))

    def _key(self, end: Any, dims: int) -> Any:
        """The clock in units of 2^-40: an integer, or a tensor that broadcasts over a draw."""
        first = next(iter(end.values())) if isinstance(end, Mapping) else end
        if not isinstance(first, Tensor):
            return round(float(first) ** (1 / 3) * 2**_KEYS)
        keys = (first.double() ** (1 / 3) * 2**_KEYS).round().long()
        return keys[(...,) + (None,) * (dims - keys.ndim)]


class _Path:
    """One path over the elements of a draw; it keeps the nodes on the way to the last cell.

    Elements go in pairs, which share the bits of a node: two normal variables by Box and Muller
    (1958), from 32 bits each.
    """

    def __init__(
        self,
        items: ItemNoise,
        depth: int,
        number: int,
        shape: Sequence[int],
        device: torch.device,
    ) -> None:
        own = ItemNoise(items.seeds)
        own.draws = -number
        self.depth, self.shape = depth, tuple(shape)
        self.size = math.prod(shape[1:])
        self.stream = own.bits((shape[0], (self.size + 1) // 2), device)
        self.root = self._nodes(torch.zeros((), dtype=torch.int64, device=device))
        self.kept = self.root.new_zeros((depth + 1, *self.root.shape))
        self.last = [-1] * depth
        self.scales = [2.0 ** (-level / 2) for level in range(depth + 1)]
        self.values: dict[int, Tensor] = {}

    def at(self, key: Any) -> Tensor:
        """W at a key of the clock, or at one for each element."""
        if isinstance(key, Tensor):
            of_rows = key.numel() == self.shape[0]
            keys = key.reshape(-1, 1) if of_rows else key.expand(self.shape).flatten(1)
            return self._apart(keys).view(self.shape)
        if key not in self.values:
            kept = list(self.values.items())[-1:]
            self.values = {**dict(kept), key: self._walked(key).view(self.shape)}
        return self.values[key]

    def _walked(self, key: int) -> Tensor:
        """W at a key, from the nodes kept: those of coarse levels are mostly still right."""
        index = [key >> (_KEYS - level) for level in range(self.depth)]
        first = next((k for k in range(self.depth) if index[k] != self.last[k]), self.depth)
        ids = [(1 << level) + index[level] for level in range(first, self.depth)]
        nodes = torch.tensor([*ids, _LEAVES + key], device=self.stream.device)
        self.kept[first:] = self._nodes(nodes[:, None, None])
        self.last = index
        inside = [(key / (1 << (_KEYS - level))) % 1 for level in range(self.depth + 1)]
        tents = [min(at, 1 - at) * scale for at, scale in zip(inside, self.scales, strict=True)]
        tents[-1] = (tents[-1] * (self.scales[-1] - tents[-1])) ** 0.5
        weights = torch.tensor(tents, dtype=torch.float64, device=self.stream.device)
        moved = (weights @ self.kept.flatten(1)).view_as(self.root)
        return moved.add_(self.root, alpha=key * 2.0**-_KEYS)

    def _apart(self, key: Tensor) -> Tensor:
        """W at a key of each row's own, ``(B, 1)``, or of each element's."""
        moved = key.double() * 2.0**-_KEYS * self._split(torch.zeros_like(key))
        for level in range(self.depth + 1):
            shift = _KEYS - level
            inside = (key & ((1 << shift) - 1)).double() * 2.0**-shift
            if level < self.depth:
                share, ids = torch.minimum(inside, 1 - inside), (1 << level) + (key >> shift)
            else:
                share, ids = (inside * (1 - inside)).sqrt(), _LEAVES + key
            moved += share * 2.0 ** (-level / 2) * self._split(ids)
        return moved

    def _split(self, ids: Tensor) -> Tensor:
        """Normal variables of nodes that differ from row to row, or from element to element."""
        if ids.shape[1] == 1:
            return self._nodes(ids)
        half = self.stream.shape[1]
        left, right = ids[:, :half], ids[:, half:]
        even, odd = _pair(self.stream, left)[0], _pair(self.stream[:, : right.shape[1]], right)[1]
        return torch.cat([even, odd], 1)

    def _nodes(self, ids: Tensor) -> Tensor:
        """Normal variables of the nodes, one of each element: the stream at position ``ids``."""
        return torch.cat(_pair(self.stream, ids), -1)[..., : self.size]


def _pair(stream: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    bits = _hash(stream + ids * _PHI)
    first, second = bits[..., None].view(torch.int32).double().unbind(-1)
    radius = first.add(0.5).mul_(2.0**-32).add_(0.5).log_().mul_(-2).sqrt_()
    angle = second * (2 * math.pi * 2.0**-32)
    return angle.cos().mul_(radius), angle.sin().mul_(radius)


def over(generator: Randomness, t: Any, s: Any) -> Randomness:
    """Bind a Brownian path to the step from t to s; other randomness knows no steps."""
    return generator.over(t, s) if isinstance(generator, BrownianPath) else generator


def path_of(generator: Randomness, n: int, like: Tensor, depth: int = 24) -> BrownianPath:
    """Return the Brownian path that is given, or paths of n items with seeds drawn from it."""
    if isinstance(generator, BrownianPath):
        return generator
    return BrownianPath(integers(1 << 53, (n,), like, generator), depth)


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


Randomness = torch.Generator | ItemNoise | BatchShare | BrownianPath | None


def uniform(shape: Sequence[int], like: Tensor, generator: Randomness = None) -> Tensor:
    """Draw uniformly on [0, 1): dtype and device of ``like``, batch dimension first."""
    if isinstance(generator, BrownianPath):
        return uniform(shape, like, generator.items)
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
    if isinstance(generator, BrownianPath):
        return generator.increment(shape, like)
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
    if generator is None or isinstance(generator, torch.Generator):
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
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


def _hash(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)).mul_(_MIX_1)
    z = z.bitwise_xor_(_shift(z, 27)).mul_(_MIX_2)
    return z.bitwise_xor_(_shift(z, 31))
