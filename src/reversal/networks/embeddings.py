r"""How a factor of a state enters a network and leaves it, site by site.

A site shows its value, whether it is known, whether it is dropped, and its clock:

.. math:: (1[t < 1]\, x,\; 1[t = 0],\; 1[t = 1],\; t) .

A dropped site says nothing: its value is hidden, so that a marginal does not depend on the draw
that stands there. A running time enters by a Fourier embedding, common to the sites of a factor.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn


class FactorPort(nn.Module, ABC):
    """The way in and out of one factor of S sites.

    Attributes:
        num_sites: S.
        num_features: F, what a site shows.
        num_outputs: what is said of all sites together, site by site, without padding.
    """

    num_sites: int
    num_features: int
    num_outputs: int

    @abstractmethod
    def values(self, x: Tensor, runs: Tensor) -> Tensor:
        """Return what sites show of their values, ``(B, S, F - 3)``.

        Args:
            x: states ``(B, *E)``.
            runs: 1 where a value may be seen, 0 where it is hidden, ``(B, S, 1)``.
        """

    @abstractmethod
    def shape(self, output: Tensor) -> Tensor:
        """Return outputs ``(B, num_outputs)`` in the shape that the factor's denoiser reads.

        It is ``(B, *sites, ...)``, each site padded with 0 to the largest.
        """

    @final
    def features(self, x: Tensor, t: Tensor) -> Tensor:
        """Return what sites show, ``(B, S, F)``: value, known, dropped, clock.

        Args:
            x: states ``(B, *E)``.
            t: clocks ``(B, *sites)``, or ``(B,)`` where the sites share one.
        """
        clock = by_site(t).expand(-1, self.num_sites)[..., None]
        values = self.values(x, (clock < 1).to(clock))
        flags = torch.cat([(clock == 0).to(clock), (clock == 1).to(clock), clock], -1)
        return torch.cat([values, flags], -1)


@final
class RealPort(FactorPort):
    """A factor of real coordinates: vectors, images, angles, rotations.

    Args:
        event_shape: E.
        sites: what has a clock; the leading dimensions of E.
        tangent_shape: the shape of an output.
        periodic: whether the coordinates are angles, shown by their sine and cosine.
        frequencies: in radians per unit, of sines and cosines that are shown beside a coordinate
            that is no angle: what is sharp in it, a network of smooth units learns sooner from
            them. Source: Tancik et al. (2020), eq. (5); Gorishniy et al. (2022), eq. (3).
    """

    frequencies: Tensor

    def __init__(
        self,
        event_shape: Sequence[int],
        sites: Sequence[int],
        tangent_shape: Sequence[int],
        *,
        periodic: bool = False,
        frequencies: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.periodic = periodic
        shown = torch.tensor([1.0] if periodic else list(frequencies))
        self.register_buffer("frequencies", shown, persistent=False)
        self.num_sites = math.prod(sites)
        self.per_site = math.prod(event_shape) // self.num_sites
        self.num_features = self.per_site * (2 * len(shown) + (not periodic)) + 3
        self.num_outputs = math.prod(tangent_shape)
        self.tangent_shape = tuple(tangent_shape)

    def values(self, x: Tensor, runs: Tensor) -> Tensor:
        """Coordinates, sines and cosines."""
        entries = x.reshape(len(x), self.num_sites, self.per_site, 1)
        phase = entries * self.frequencies
        plain = [] if self.periodic else [entries]
        shown = torch.cat([*plain, phase.sin(), phase.cos()], -1)
        return shown.flatten(2) * runs.to(x)

    def shape(self, output: Tensor) -> Tensor:
        """Tangent vectors."""
        return output.reshape(len(output), *self.tangent_shape)


@final
class CodePort(FactorPort):
    """A factor of codes: one embedding table with an offset per site, one row of logits per site.

    Args:
        cardinalities: the number of values of each site, in order.
        sites: the shape of the sites.
        masked: whether the code ``max(cardinalities)`` is the mask.
        width: the length of an embedding.

    No site pays for the cardinality of another, in parameters or in products; the logits are padded
    to the largest, ``(B, *sites, K)``.
    """

    offsets: Tensor
    places: Tensor
    limits: Tensor

    def __init__(
        self, cardinalities: Sequence[int], sites: Sequence[int], *, masked: bool, width: int = 16
    ) -> None:
        super().__init__()
        self.sites, self.num_values = tuple(sites), max(cardinalities)
        counts = torch.tensor(list(cardinalities))
        rows = counts + masked
        self.register_buffer("limits", counts - 1 + masked, persistent=False)
        self.register_buffer("offsets", rows.cumsum(0) - rows, persistent=False)
        places = torch.arange(self.num_values).expand(len(counts), -1) < counts[:, None]
        self.register_buffer("places", places.flatten().nonzero()[:, 0], persistent=False)
        self.table = nn.Embedding(int(rows.sum()), width)
        self.num_sites, self.num_features = len(counts), width + 3
        self.num_outputs = int(counts.sum())

    def values(self, x: Tensor, runs: Tensor) -> Tensor:
        """Embeddings."""
        rows = torch.minimum(by_site(x), self.limits) + self.offsets
        return self.table(rows) * runs.to(self.table.weight)

    def shape(self, output: Tensor) -> Tensor:
        """Logits, 0 beyond a site's own values."""
        if len(self.places) == self.num_sites * self.num_values:
            return output.reshape(len(output), *self.sites, self.num_values)
        padded = output.new_zeros(len(output), self.num_sites * self.num_values)
        padded = padded.index_copy(1, self.places, output)
        return padded.reshape(len(output), *self.sites, self.num_values)


@final
class TimeEmbedding(nn.Module):
    """Sines and cosines of the mean running time of a factor, ``(B, num_features)``.

    Args:
        num_frequencies: how many frequencies, spaced evenly in logarithm from 1 to ``highest``.
        highest: the highest frequency, in radians per unit of time.
    """

    frequencies: Tensor

    def __init__(self, num_frequencies: int = 16, highest: float = 100.0) -> None:
        super().__init__()
        spaced = torch.linspace(0, math.log(highest), num_frequencies).exp()
        self.register_buffer("frequencies", spaced, persistent=False)
        self.num_features = 2 * num_frequencies + 1

    def forward(self, t: Tensor) -> Tensor:
        """Embed clocks ``(B, *sites)``; the last feature is the share of running sites."""
        flat = by_site(t)
        runs = ((flat > 0) & (flat < 1)).to(flat)
        now = (flat * runs).sum(1, keepdim=True) / runs.sum(1, keepdim=True).clamp_min(1)
        phase = now * self.frequencies
        return torch.cat([phase.sin(), phase.cos(), runs.mean(1, keepdim=True)], 1)


def by_site(values: Tensor) -> Tensor:
    """Return ``(B, *sites)`` as ``(B, S)``."""
    return values.flatten(1) if values.ndim > 1 else values[:, None]
