r"""From a process to a trained denoiser: its network, its clocks, its objective.

The clocks are a mixture: any part given any part (each site known or dropped at random), and whole
factors given whole factors or, of the columns of a table, one given any, so that one network knows
every conditional,

.. math:: p(x_A \mid x_B) \quad \text{for any parts } A, B .
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from reversal import state
from reversal.clocks import FactorClocks, MixedClocks, SiteClocks
from reversal.core import Path
from reversal.denoisers import NetworkDenoiser
from reversal.networks import CodePort, FactorPort, RealPort
from reversal.noise import Randomness
from reversal.objectives import Regression
from reversal.one_site import OneSite
from reversal.spaces import Categorical, Torus
from reversal.training.distributed import Alone, World
from reversal.training.keeping import Keeper
from reversal.training.logs import Check
from reversal.training.loop import Plan, Progress, Trace, train
from reversal.training.permutations import permutation
from reversal.training.recipe import network_from_config

HELD_OUT: Final = 0.1
MOST_HELD_OUT: Final = 2048
WHOLE_FACTORS: Final = (
    (SiteClocks(known=0.4, dropped=0.1), 0.6),
    (FactorClocks(known=0.45, dropped=0.1), 0.4),
)
ANY_COLUMNS: Final = (
    (SiteClocks(known=0.4, dropped=0.1), 0.85),
    (OneSite(complete=0.5), 0.15),
)
DROPOUT: Final = 0.1
MANY: Final = 10_000
"""From how many rows on nothing is left out of the network in training, and waves are shown to it;
fewer rows it would know by heart."""
CHECKED: Final = 1024
"""How many draws a held-out loss is the mean of, at least."""
FREQUENCIES: Final = (1.0, 2.0, 4.0, 8.0)
"""Of the waves, sines and cosines, in which a network sees the numbers of a large table."""
MINUTES: Final = (1, 10)
"""The least and the greatest default time budget."""
CELLS: Final = 8000
"""How many cells of data get a minute; the budget grows with the root of their number."""


def minutes_for(num_rows: int, num_sites: int) -> float:
    """Return the default time budget: whole minutes that grow with the size of the data."""
    least, most = MINUTES
    return float(min(most, max(least, round(math.sqrt(num_rows * num_sites / CELLS)))))


def plan_for(settings: Mapping[str, Any], present: Mapping[str, Tensor]) -> Plan:
    """Return how a model trains on data of this size; a number of steps is never cut short."""
    minutes, steps = settings["minutes"], settings["steps"]
    if minutes is None and steps is None:
        sites = sum(mask[0].numel() for mask in present.values())
        minutes = minutes_for(state.batch_size(present), sites)
    patience = Plan.patience if steps is None else 0
    return Plan(steps, minutes, learning_rate=settings["learning_rate"], patience=patience)


def sized(architecture: Mapping[str, Any], num_rows: int, whole_factors: bool) -> dict[str, Any]:
    """Return what makes a network, with what was left to the data.

    Args:
        architecture: the kind and size of a network; a dropout of None is left to the data.
        num_rows: how many rows the data have.
        whole_factors: whether a factor is a thing by itself, and not a pack of columns.
    """
    dropout, is_large = architecture["dropout"], num_rows >= MANY
    chosen = 0.0 if is_large else DROPOUT
    return {
        **architecture,
        "dropout": chosen if dropout is None else dropout,
        "frequencies": list(FREQUENCIES) if is_large and not whole_factors else [],
    }


def first_network(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Return the network of a run that does not say what it is made of."""
    return {**architecture, "dropout": 0.0, "frequencies": []}


def denoiser_of(
    process: Any, network: Mapping[str, Any], whole_factors: bool = True
) -> NetworkDenoiser:
    """Return an untrained denoiser of a product; its weights come from torch's own generator.

    Args:
        process: a product of paths.
        network: its kind and size, as `recipe.network_to_config` says it, and the frequencies of
            its `RealPort`.
        whole_factors: whether a factor is a thing by itself, that is asked for given others as a
            whole, and not a pack of columns.
    """
    size = {name: value for name, value in network.items() if name != "frequencies"}
    trunk = network_from_config(size).build(ports_of(process, network["frequencies"]))
    laws = WHOLE_FACTORS if whole_factors else ANY_COLUMNS
    return NetworkDenoiser(trunk, process, clocks=MixedClocks(laws))


def ports_of(process: Any, frequencies: Sequence[float] = ()) -> dict[str, FactorPort]:
    """Return how the factors of a product of paths enter a network and leave it."""
    return {name: _port(path, frequencies) for name, path in process.parts.items()}


def fit_denoiser(
    denoiser: NetworkDenoiser,
    data: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    plan: Plan,
    seed: int,
    on_progress: Callable[[Progress], None] | None = None,
    callbacks: Sequence[Callable[[Check], None]] = (),
    keeper: Keeper | None = None,
    world: World | None = None,
) -> Trace:
    """Train on nine tenths of the rows; the others say which weights to keep.

    Args:
        denoiser: trained in place.
        data: states, and masks of the sites that are present: tensors, or what gives tensors for
            indices, as states on disk do.
        plan: budget and optimizer.
        seed: where batches and noise come from.
        on_progress: called after every step.
        callbacks: called at every check.
        keeper: saves the training as it goes, and has what it goes on from.
        world: the processes that train together.
    """
    generator = torch.Generator().manual_seed(seed)
    n = state.batch_size(data[0])
    order = permutation(n, generator)
    size = min(int(HELD_OUT * n), MOST_HELD_OUT)
    held = order[:size]
    objective = Regression()
    world = Alone() if world is None else world
    share = world.noise(generator, plan.batch_size)

    def losses(index: Tensor, source: Randomness) -> Tensor:
        x_0, seen = ({name: part[index] for name, part in tree.items()} for tree in data)
        return objective(denoiser, x_0, observed=seen, generator=source)

    def validate() -> Tensor:
        """The same draws at every check: what changes is the network."""
        source = torch.Generator().manual_seed(seed + 1)
        batches = held.repeat(max(1, -(-CHECKED // size))).split(2 * plan.batch_size)
        return torch.cat([losses(index, source) for index in batches]).view(-1, size).mean(0)

    return train(
        denoiser,
        lambda index: losses(order[index + size], share),
        n - size,
        plan,
        generator,
        validate if size else None,
        on_progress,
        callbacks,
        keeper,
        world,
    )


def _port(path: Path, frequencies: Sequence[float]) -> FactorPort:
    """Return how a factor enters a network."""
    space = path.space
    if isinstance(space, Categorical):
        counts = space.cardinalities or (space.num_values,) * torch.Size(space.sites).numel()
        return CodePort(counts, space.sites, masked=path.noisy_space.masked)
    return RealPort(
        space.event_shape,
        space.sites,
        space.tangent_shape,
        periodic=isinstance(space, Torus),
        frequencies=frequencies,
    )
