r"""How rows are scored: everything by a bound, or the numbers by their probability flow.

.. math:: \log p(x) \ge \log p(x) - KL(\text{reversal} \| \text{model}), \qquad
   \log p(x) = \log p(z(x)) + \sum_j \log \frac{dz_j}{dx_j} ,

with z the latent scale of a number, whose flow gives log p(z). Source: Kingma et al. (2021); Song
et al. (2021), section 4.3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor

from reversal.core import Denoiser
from reversal.data.source import Encoded, Source
from reversal.errors import CapabilityError, listed
from reversal.likelihood import Likelihood, elbo, flow_log_prob
from reversal.likelihood.flow import CONVERGED
from reversal.likelihood.solvers import Solver
from reversal.noise import Randomness
from reversal.state import Tree

DITHERS: Final = 8
"""How many times the encoding of rounded numbers is drawn anew in a likelihood."""


class Method(ABC):
    """How the rows of a model are scored."""

    @abstractmethod
    def check(self, source: Source) -> None:
        """Raise ``CapabilityError`` unless all that is modelled can be scored so."""

    @abstractmethod
    def encodings(self, source: Source, rows: Any, seed: int) -> Iterator[Encoded]:
        """The states of rows, as often as they are scored, one at a time: they may be large."""

    @abstractmethod
    def score(
        self, denoiser: Denoiser, encoded: Encoded, observed: Tree, generator: Randomness
    ) -> Likelihood:
        """The likelihood of states.

        Args:
            denoiser: of the model.
            encoded: some of the rows.
            observed: the entries present, or None if all are in all the rows there are: processes
                that share rows have to agree on it.
            generator: where randomness comes from.
        """

    @abstractmethod
    def joined(self, source: Source, draws: list[Likelihood], running: Tensor) -> Likelihood:
        """The likelihood of rows from those of their encodings.

        Args:
            source: what the rows are.
            draws: one for each encoding, in the caller's units.
            running: the number of real dimensions that are scored in each row, ``(B,)``.
        """


@final
@dataclass(frozen=True)
class Bound(Method):
    """A lower bound of everything that is modelled, by random times.

    Args:
        num_samples: random times per row, in multiples of 8, 16 at least.
    """

    num_samples: int = 64

    def check(self, source: Source) -> None:
        """Everything is."""

    def encodings(self, source: Source, rows: Any, seed: int) -> Iterator[Encoded]:
        """``DITHERS``: they are its replicates, too."""
        yield from (source.encode(rows, seed + dither) for dither in range(DITHERS))

    def score(
        self, denoiser: Denoiser, encoded: Encoded, observed: Tree, generator: Randomness
    ) -> Likelihood:
        """A share of the times."""
        return elbo(
            denoiser,
            encoded.state,
            observed=observed,
            num_samples=max(2, self.num_samples // DITHERS),
            generator=generator,
        )

    def joined(self, source: Source, draws: list[Likelihood], running: Tensor) -> Likelihood:
        """Their mean; its error is that of replicates."""
        values = torch.stack([draw.value for draw in draws])
        stderr = values.var(0).sqrt() / DITHERS**0.5 if values.numel() else values[0]
        return Likelihood(values.mean(0), stderr, 0.0, "lower bound", source.measure)


@final
@dataclass(frozen=True)
class Flow(Method):
    """The log-density of the numbers of a row, by the probability flow, not a bound of it.

    It is the density of the flow, which is that of the reversal where the score is exact. Columns
    of rounded numbers count as probabilities, whose logarithm is bounded by the mean over uniform
    dithering; the kind says so.

    Args:
        given_categories: whether the density is that of the numbers given the categories, which
            have no flow; without it a model that has any is refused.
        probes: random signs for the divergence, as of ``flow_log_prob``.
        solver: as of ``flow_log_prob``.

    Cost: about 200 calls of the network and as many backward passes per number, for each encoding.
    """

    given_categories: bool = False
    probes: int | None = None
    solver: Solver | None = None

    def check(self, source: Source) -> None:
        """Numbers are, and other real things."""
        finite = sorted(set(source.space.parts) - set(_real(source)))
        if not _real(source):
            raise CapabilityError(
                f"Expected numbers, whose density a flow has, got a model of {listed(finite)} "
                f"alone. Leave `method` out for the bound."
            )
        if finite and not self.given_categories:
            raise CapabilityError(
                f"Expected numbers alone, whose density a flow has, got a model with categories "
                f"too ({listed(finite)}). Write Flow(given_categories=True) for the density of the "
                f"numbers given the categories, or leave `method` out for a bound of both."
            )

    def encodings(self, source: Source, rows: Any, seed: int) -> Iterator[Encoded]:
        """One, where the numbers of rows have one."""
        first, second = (source.encode(rows, seed + dither) for dither in range(2))
        yield first
        if not all(torch.equal(first.state[k], second.state[k]) for k in _real(source)):
            yield second
            yield from (source.encode(rows, seed + dither) for dither in range(2, DITHERS))

    def score(
        self, denoiser: Denoiser, encoded: Encoded, observed: Tree, generator: Randomness
    ) -> Likelihood:
        """The density of the real factors, given what is there of the others."""
        parts = denoiser.process.space.parts
        given = {k: m for k, m in encoded.present.items() if not parts[k].is_real}
        return flow_log_prob(
            denoiser,
            encoded.state,
            given=given or None,
            observed=encoded.present,
            probes=self.probes,
            generator=generator,
            solver=self.solver,
        )

    def joined(self, source: Source, draws: list[Likelihood], running: Tensor) -> Likelihood:
        """Their mean; where there are several, its error is that of replicates."""
        values = torch.stack([draw.value for draw in draws])
        biases = torch.stack([torch.as_tensor(draw.bias) for draw in draws])
        stderr, bias = draws[0].stderr, biases.mean(0)
        if len(draws) > 1:
            stderr = values.var(0).sqrt() / len(draws) ** 0.5
        kind = "log-density" if len(draws) == 1 else "lower bound, by dithering,"
        kind = f"{kind} by the flow{' given the categories' if self.given_categories else ''}"
        late = bias > CONVERGED * running
        if bool(late.any()):
            kind += f", not converged in {int(late.sum())} of {len(late)} rows"
        return Likelihood(values.mean(0), stderr, bias, kind, source.measure)


def _real(source: Source) -> list[str]:
    return [name for name, part in source.space.parts.items() if part.is_real]
