"""How a model is trained: what a version chooses from the settings and the size of the data.

A training on disk keeps its method, and goes on with that one. So another version, whose choices
are others, neither refuses it nor changes it on its way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self, final

from reversal.clocks import ClockLaw, FactorClocks, MixedClocks, SiteClocks
from reversal.errors import CheckpointError
from reversal.one_site import OneSite
from reversal.training import recipe
from reversal.training.loop import Plan

Laws = tuple[tuple[ClockLaw, float], ...]
"""Laws of clocks and their weights."""

ARCHITECTURE: Final = ("hidden_features", "num_blocks", "dropout")
SETTINGS: Final = (*ARCHITECTURE, "minutes", "steps", "learning_rate", "seed")
"""The arguments of a model that its training depends on."""

WHOLE_FACTORS: Final = (
    (SiteClocks(known=0.4, dropped=0.1), 0.6),
    (FactorClocks(known=0.45, dropped=0.1), 0.4),
)
ANY_COLUMNS: Final = ((SiteClocks(known=0.4, dropped=0.1), 0.9), (OneSite(), 0.1))
DROPOUT: Final = 0.1
FREQUENCIES: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Of the waves, sines and cosines, in which a network sees the numbers of a large table."""
MANY: Final = 10_000
"""From how many rows on waves are shown to a network; fewer rows it would know by heart."""
HELD_OUT: Final = 0.1
MOST_HELD_OUT: Final = 2048
CHECKED: Final = 1024
"""How many draws a held-out loss is the mean of, at least."""
MINUTES: Final = (1, 10)
"""The least and the greatest default time budget."""
CELLS: Final = 8000
"""How many cells of data get a minute; the budget grows with the root of their number."""


@final
@dataclass(frozen=True)
class Method:
    """All that a training follows and that no user says.

    Args:
        plan: budget and optimizer.
        network: its kind and size, and the frequencies of its `RealPort`.
        clocks: the laws of the clocks, and their weights.
        held_out: how many rows say which weights to keep, and are not trained on.
        checked: how many draws a held-out loss is the mean of, at least.
    """

    plan: Plan
    network: Mapping[str, Any]
    clocks: Laws
    held_out: int
    checked: int

    def to_config(self) -> dict[str, Any]:
        """Return plain JSON types from which `from_config` makes it again."""
        return {
            "plan": asdict(self.plan),
            "network": dict(self.network),
            "clocks": [[recipe.clocks_to_config(law), weight] for law, weight in self.clocks],
            "held_out": self.held_out,
            "checked": self.checked,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the method that was kept.

        Raises:
            CheckpointError: if it says what this version does not know.
        """
        try:
            parts = dict(config)
            plan, clocks = Plan(**parts.pop("plan")), laws_of(parts.pop("clocks"))
            return cls(plan=plan, clocks=clocks, **parts)
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"Expected a training that this version goes on with, got one whose method it does "
                f"not know: {error}. Install the version of reversal that began it, or fit anew."
            ) from error


def method_for(
    settings: Mapping[str, Any], num_rows: int, num_sites: int, whole_factors: bool
) -> Method:
    """Return how a model is trained on data of this size.

    Args:
        settings: the arguments of the model.
        num_rows: the number of rows.
        num_sites: the number of cells of a row.
        whole_factors: whether a factor is a thing by itself, that is asked for given others as a
            whole, and not a pack of columns.
    """
    return Method(
        plan=plan_for(settings, num_rows, num_sites),
        network=network_for(settings, num_rows, whole_factors),
        clocks=WHOLE_FACTORS if whole_factors else ANY_COLUMNS,
        held_out=min(int(HELD_OUT * num_rows), MOST_HELD_OUT),
        checked=CHECKED,
    )


def minutes_for(num_rows: int, num_sites: int) -> float:
    """Return the default time budget: whole minutes that grow with the size of the data."""
    least, most = MINUTES
    return float(min(most, max(least, round(math.sqrt(num_rows * num_sites / CELLS)))))


def plan_for(settings: Mapping[str, Any], num_rows: int, num_sites: int) -> Plan:
    """Return budget and optimizer; a number of steps is never cut short."""
    minutes, steps = settings["minutes"], settings["steps"]
    if minutes is None and steps is None:
        minutes = minutes_for(num_rows, num_sites)
    patience = Plan.patience if steps is None else 0
    return Plan(steps, minutes, learning_rate=settings["learning_rate"], patience=patience)


def network_for(settings: Mapping[str, Any], num_rows: int, whole_factors: bool) -> dict[str, Any]:
    """Return what makes a network, with what was left to the data."""
    size = settings.get("network") or {name: settings[name] for name in ARCHITECTURE}
    dropout = DROPOUT if size["dropout"] is None else size["dropout"]
    waves = FREQUENCIES if num_rows >= MANY and not whole_factors else ()
    return {**size, "dropout": dropout, "frequencies": list(waves)}


def made_of(
    training: Mapping[str, Any], settings: Mapping[str, Any], whole_factors: bool
) -> tuple[Mapping[str, Any], Laws]:
    """Return network and clocks of a model that was saved.

    Args:
        training: what a run says of its training; an early one says nothing of its method.
        settings: the arguments of the model.
        whole_factors: as in `method_for`.

    Raises:
        CheckpointError: if it says what this version does not know.
    """
    kept = training.get("method")
    if kept is None:
        made = method_for(settings, 1, 1, whole_factors)
        return {**made.network, "frequencies": []}, made.clocks
    return kept["network"], laws_of(kept["clocks"])


def laws_of(config: Any) -> Laws:
    """Return laws of clocks and their weights.

    Raises:
        CheckpointError: if one is unknown to this version.
        ClockError: if they are no mixture.
    """
    laws = tuple((recipe.clocks_from_config(law), float(weight)) for law, weight in config)
    return MixedClocks(laws).laws
