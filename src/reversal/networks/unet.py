r"""A U-Net: residual convolutions on smaller and smaller images and back, modulated by time.

.. math:: h \leftarrow h + V * \mathrm{drop}\,\mathrm{silu}\big((1 + a) \odot
   \mathrm{norm}(U * \mathrm{silu}(\mathrm{norm}(h))) + b\big),

with (a, b) affine in the embedding of time and class. Every image on the way down is shown again on
the way up. Source: Ronneberger et al. (2015) for the shape; Ho et al. (2020), appendix B, and
Dhariwal and Nichol (2021), section 3, for the blocks.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reversal.networks.embeddings import TimeEmbedding

GROUPS = 8
"""Of channels that are normalized together, at most."""


@final
class UNet(nn.Module):
    """A network of images ``(B, C, H, W)``, a clock and perhaps a class, for ``NetworkDenoiser``.

    Args:
        in_channels: C.
        channels: the width at each resolution, the finest first; each next one has half the height
            and width, rounded up.
        num_blocks: residual blocks at a resolution on the way down; one more on the way up.
        num_classes: of the condition, codes ``(B,)`` in 0 .. num_classes; the last, one more than
            there are, stands for none: the ``null`` of ``ConditionDropout`` and ``ClassifierFree``.
            Without a condition all items have none.
        num_heads: of the attention at the coarsest resolution; 0 leaves it out.
        dropout: the probability that an inner unit is left out in training.
        site_clocks: whether the clock of every pixel is shown, ``(B, C, H, W)``, as where pixels
            may be known, and not only their mean.
        out_channels: of the output; C if None.

    Raises:
        ValueError: if states, clocks or condition do not fit.

    Cost: about 18 num_blocks * width^2 * H * W multiplications per image and resolution.
    """

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, ...] = (32, 64, 64),
        *,
        num_blocks: int = 1,
        num_classes: int = 0,
        num_heads: int = 4,
        dropout: float = 0.0,
        site_clocks: bool = False,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 2 or num_blocks < 1:
            raise ValueError(
                f"Expected a width >= 2 for each resolution and at least one block, got "
                f"{channels} and {num_blocks}. Write UNet(1, (32, 64), num_blocks=1)."
            )
        self.in_channels, self.num_classes, self.site_clocks = in_channels, num_classes, site_clocks
        width, shown = 4 * channels[0], in_channels * (2 if site_clocks else 1)
        self.time = TimeEmbedding(num_frequencies=32, highest=1000.0)
        self.embed = nn.Sequential(
            nn.Linear(self.time.num_features, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.classes = nn.Embedding(num_classes + 1, width)
        self.inward = nn.Conv2d(shown, channels[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        skips, now = [channels[0]], channels[0]
        for level, size in enumerate(channels):
            blocks = nn.ModuleList()
            for _ in range(num_blocks):
                blocks.append(ConvBlock(now, size, width, dropout))
                now = size
                skips.append(now)
            self.down.append(blocks)
            if level + 1 < len(channels):
                self.shrink.append(nn.Conv2d(now, now, 3, stride=2, padding=1))
                skips.append(now)
        self.middle = ConvBlock(now, now, width, dropout)
        self.attention = SelfAttention(now, num_heads) if num_heads else nn.Identity()
        self.after = ConvBlock(now, now, width, dropout)
        for level, size in reversed(list(enumerate(channels))):
            blocks = nn.ModuleList()
            for _ in range(num_blocks + 1):
                blocks.append(ConvBlock(now + skips.pop(), size, width, dropout))
                now = size
            self.up.append(blocks)
            if level:
                self.grow.append(nn.Conv2d(now, now, 3, padding=1))
        self.norm = _norm(now)
        self.outward = _silent(nn.Conv2d(now, out_channels or in_channels, 3, padding=1))

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Return the output, ``(B, out_channels, H, W)``."""
        condition = self._condition(x_t, t, cond)
        shown = torch.cat([x_t, t], 1) if self.site_clocks else x_t
        h = self.inward(shown)
        kept = [h]
        for level, blocks in enumerate(self.down):
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                h = block(h, condition)
                kept.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
                kept.append(h)
        h = self.after(self.attention(self.middle(h, condition)), condition)
        for level, blocks in enumerate(self.up):
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                h = block(torch.cat([h, kept.pop()], 1), condition)
            if level < len(self.grow):
                h = self.grow[level](F.interpolate(h, size=kept[-1].shape[-2:], mode="nearest"))
        return self.outward(F.silu(self.norm(h)))

    def _condition(self, x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        form = (len(x_t), self.in_channels, *x_t.shape[2:])
        if x_t.ndim != 4 or x_t.shape != form:
            raise ValueError(
                f"Expected images of shape (B, {self.in_channels}, H, W), got "
                f"{tuple(x_t.shape)}. Give the space as Euclidean({self.in_channels}, H, W)."
            )
        if t.shape != (x_t.shape if self.site_clocks else form[:1]):
            asked = "a clock for every pixel" if self.site_clocks else "one clock per item"
            raise ValueError(
                f"Expected {asked}, got clocks of shape {tuple(t.shape)}. "
                f"Say site_clocks={t.ndim > 1} to UNet."
            )
        if cond is None:
            cond = torch.full(form[:1], self.num_classes, device=x_t.device)
        if not isinstance(cond, Tensor) or cond.shape != form[:1] or cond.is_floating_point():
            raise ValueError(
                f"Expected a class for each item, integers of shape {form[:1]}, got {cond!r}. "
                f"{self.num_classes} stands for none."
            )
        return F.silu(self.embed(self.time(t)) + self.classes(cond))


@final
class ConvBlock(nn.Module):
    """One modulated residual block of two convolutions.

    Args:
        in_channels: of the image that comes.
        out_channels: of the image that goes.
        num_conditions: the width of the embedding.
        dropout: the probability that an inner unit is left out in training.
    """

    def __init__(
        self, in_channels: int, out_channels: int, num_conditions: int, dropout: float
    ) -> None:
        super().__init__()
        self.before = _norm(in_channels)
        self.inner = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(num_conditions, 2 * out_channels)
        self.between = _norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.outer = _silent(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Return the image after this block."""
        inside = self.between(self.inner(F.silu(self.before(h))))
        scale, shift = self.modulation(condition)[..., None, None].chunk(2, 1)
        return self.skip(h) + self.outer(self.dropout(F.silu(inside * (1 + scale) + shift)))


@final
class SelfAttention(nn.Module):
    """Attention among all pixels of a small image.

    Args:
        channels: of the image.
        num_heads: that share them.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(
                f"Expected heads that share {channels} channels evenly, got {num_heads}. "
                f"Give a divisor, or num_heads=0 for no attention."
            )
        self.num_heads = num_heads
        self.norm = _norm(channels)
        self.inward = nn.Conv2d(channels, 3 * channels, 1)
        self.outward = _silent(nn.Conv2d(channels, channels, 1))

    def forward(self, h: Tensor) -> Tensor:
        """Return the image after attention."""
        parts = self.inward(self.norm(h)).flatten(2).unflatten(1, (3 * self.num_heads, -1)).mT
        mixed = F.scaled_dot_product_attention(*parts.chunk(3, 1))
        return h + self.outward(mixed.mT.flatten(1, 2).unflatten(2, h.shape[-2:]))


def _norm(channels: int) -> nn.GroupNorm:
    groups = next(g for g in range(min(GROUPS, channels // 2), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def _silent(layer: Any) -> Any:
    """Start a layer at 0, so that its block starts as the identity."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
