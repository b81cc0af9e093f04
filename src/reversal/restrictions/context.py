r"""What is known of n items, everything else marginalized out, and a look at one site more.

.. math:: p(x^j \mid x^A) \quad \text{by the clock}\quad t^A = 0, \; t^j = t, \;
   t^{rest} = 1 .
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from reversal import state
from reversal.core import Denoiser, Estimate
from reversal.grids import RUNNING_MAX
from reversal.noise import Randomness
from reversal.questions import Question, ask

LARGEST_CALL = 4096


class Site(NamedTuple):
    """One site: its factor ("" on a plain space), and its place among the factor's sites."""

    factor: str
    place: tuple[int, ...] = ()


@final
@dataclass(frozen=True)
class Context:
    """The known sites of n items.

    Args:
        denoiser: an estimate of the reversal.
        values: per factor ``(n, *E)``; a prior draw stands where a site is not known.
        known: per factor ``(n, *sites)`` bool.
        largest_call: the largest batch that the denoiser is shown.
    """

    denoiser: Denoiser
    values: dict[str, Tensor]
    known: dict[str, Tensor]
    largest_call: int = LARGEST_CALL

    @classmethod
    def of(
        cls,
        denoiser: Denoiser,
        n: int,
        given: Any = None,
        generator: Randomness = None,
        largest_call: int = LARGEST_CALL,
    ) -> Context:
        """Return the context of n items of which ``given`` is known, as a sampler reads it."""
        path, like = denoiser.process, denoiser.like
        question = ask(path.space, n, given, None, like)
        prior = path.prior.sample(n, generator, like)
        values = named(question.start(path.space, prior, None))
        known = named(question.known, values)
        masks = {
            name: torch.zeros((n, *space.sites), dtype=torch.bool, device=like.device)
            if known[name] is None
            else known[name]
            for name, space in named(path.space.parts).items()
        }
        return cls(denoiser, values, masks, largest_call)

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    @property
    def given(self) -> Any:
        """What is known, as a sampler takes it."""
        pairs = {name: (self.values[name], self.known[name]) for name in self.values}
        return pairs.get("", pairs)

    def rows(self, index: Tensor | slice) -> Context:
        """The items at an index."""
        return replace(
            self,
            values={name: part[index] for name, part in self.values.items()},
            known={name: part[index] for name, part in self.known.items()},
        )

    def repeated(self, times: int) -> Context:
        """Every item several times, one after another."""
        return self.rows(torch.arange(len(self)).repeat_interleave(times))

    def knowing(self, site: Site, values: Tensor) -> Context:
        """The same items with one more known site, values ``(n,)``."""
        at = (slice(None), *site.place)
        value, known = self.values[site.factor].clone(), self.known[site.factor].clone()
        value[at], known[at] = values.to(value), True
        return replace(
            self,
            values={**self.values, site.factor: value},
            known={**self.known, site.factor: known},
        )

    def refuse(self, site: Site) -> None:
        """Raise ``ClockError`` if the clock law never runs this site alone beside what is known."""
        at = (slice(None), *site.place)
        dropped = {name: ~known for name, known in self.known.items()}
        dropped[site.factor][at] = False
        known = self.known.get("", self.known)
        question = Question(None, known, dropped.get("", dropped))
        self.denoiser.clocks.refuse(self.denoiser.process.space, question)

    def distinct(self) -> tuple[Context, Tensor]:
        """Return one item for each set of equal ones, and which one stands for each, ``(n,)``."""
        columns = [torch.zeros(len(self), 1, dtype=torch.float64, device=self.denoiser.like.device)]
        for name, known in self.known.items():
            value = torch.where(state.trail(known, self.values[name].ndim - known.ndim),
                                self.values[name], 0)  # fmt: skip
            for part in (value, known):
                flat = part.reshape(len(self), -1).double()
                columns.append(flat[:, (flat != flat[:1]).any(0)])
        _, inverse = torch.unique(torch.cat(columns, 1), dim=0, return_inverse=True)
        first = torch.full((int(inverse.max()) + 1,), len(self), device=inverse.device)
        first = first.scatter_reduce(
            0, inverse, torch.arange(len(self), device=inverse.device), "amin"
        )
        return self.rows(first), inverse

    def look(self, site: Site, t: float, values: Tensor | None = None) -> Estimate:
        """Return the estimate of a site's factor where the site runs and stands at values ``(n,)``.

        Cost: one network call; the items are shown ``largest_call`` at a time.
        """
        parts = [self.rows(slice(k, k + self.largest_call))._look(site, t, part)
                 for k, part in self._pieces(values)]  # fmt: skip
        if len(parts) == 1:
            return parts[0]
        x_t, value = torch.cat([p.x_t for p in parts]), torch.cat([p.value for p in parts])
        clock = torch.cat([p.t for p in parts])
        return Estimate(parts[0].path, x_t, clock, parts[0].kind, value)

    def _pieces(self, values: Tensor | None) -> list[tuple[int, Tensor | None]]:
        starts = range(0, max(len(self), 1), self.largest_call)
        return [(k, None if values is None else values[k : k + self.largest_call]) for k in starts]

    def _look(self, site: Site, t: float, values: Tensor | None) -> Estimate:
        like, at = self.denoiser.like, (slice(None), *site.place)
        clock = {name: (~known).to(like) for name, known in self.known.items()}
        clock[site.factor][at] = min(t, RUNNING_MAX)
        x_t = dict(self.values)
        if values is not None:
            x_t[site.factor] = x_t[site.factor].clone()
            x_t[site.factor][at] = values.to(x_t[site.factor])
        plain = "" in x_t
        estimate = self.denoiser(x_t[""] if plain else x_t, clock[""] if plain else clock)
        return estimate if plain else estimate[site.factor]


def named(tree: Any, names: Any = None) -> dict[str, Any]:
    """Return a tree as a dict; what is plain gets the name "" unless it is shared by factors."""
    if isinstance(tree, Mapping):
        return dict(tree)
    return {"": tree} if names is None else dict.fromkeys(names, tree)
