r"""From a process to a trained denoiser: its network, its clocks, its objective.

The clocks are a mixture: any part given any part (each site known or dropped at random), and whole
factors given whole factors or, of the columns of a table, one given any, so that one network knows
every conditional,

.. math:: p(x_A \mid x_B) \quad \text{for any parts } A, B .
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from reversal import state
from reversal.clocks import MixedClocks
from reversal.core import Path
from reversal.denoisers import NetworkDenoiser
from reversal.networks import CodePort, FactorPort, RealPort
from reversal.noise import Randomness
from reversal.objectives import Regression
from reversal.spaces import Categorical, Torus
from reversal.training.distributed import Alone, World
from reversal.training.keeping import Keeper
from reversal.training.logs import Check
from reversal.training.loop import Progress, Trace, train
from reversal.training.method import Laws, Method
from reversal.training.permutations import permutation
from reversal.training.recipe import network_from_config


def denoiser_of(process: Any, network: Mapping[str, Any], clocks: Laws) -> NetworkDenoiser:
    """Return an untrained denoiser of a product; its weights come from torch's own generator.

    Args:
        process: a product of paths.
        network: its kind and size, as `recipe.network_to_config` says it, and the frequencies of
            its `RealPort`.
        clocks: the laws of the clocks, and their weights.
    """
    size = {name: value for name, value in network.items() if name != "frequencies"}
    trunk = network_from_config(size).build(ports_of(process, network["frequencies"]))
    return NetworkDenoiser(trunk, process, clocks=MixedClocks(clocks))


def ports_of(process: Any, frequencies: Sequence[float] = ()) -> dict[str, FactorPort]:
    """Return how the factors of a product of paths enter a network and leave it."""
    return {name: _port(path, frequencies) for name, path in process.parts.items()}


def fit_denoiser(
    denoiser: NetworkDenoiser,
    data: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    method: Method,
    seed: int,
    on_progress: Callable[[Progress], None] | None = None,
    callbacks: Sequence[Callable[[Check], None]] = (),
    keeper: Keeper | None = None,
    world: World | None = None,
) -> Trace:
    """Train on all rows but some, which say what weights to keep.

    Args:
        denoiser: trained in place.
        data: states, and masks of the sites that are present: tensors, or what gives tensors for
            indices, as states on disk do.
        method: budget and optimizer, and how many rows are held out.
        seed: where batches and noise come from.
        on_progress: called after every step.
        callbacks: called at every check.
        keeper: saves the training as it goes, and has what it goes on from.
        world: the processes that train together.
    """
    generator = torch.Generator().manual_seed(seed)
    n = state.batch_size(data[0])
    order = permutation(n, generator)
    size, plan = method.held_out, method.plan
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
        batches = held.repeat(max(1, -(-method.checked // size))).split(2 * plan.batch_size)
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
