r"""From a process to a trained denoiser: its network, its clocks, its objective.

The clocks are a mixture: any part given any part (each site known or dropped at random), and whole
factors given whole factors, so that one network knows every conditional,

.. math:: p(x_A \mid x_B) \quad \text{for any parts } A, B .
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from reversal import state
from reversal.clocks import FactorClocks, MixedClocks, SiteClocks
from reversal.core import Path
from reversal.denoisers import NetworkDenoiser
from reversal.networks import CodePort, FactorPort, RealPort, ResidualMLP
from reversal.objectives import Regression
from reversal.spaces import Categorical, Torus
from reversal.training.loop import Plan, Progress, Trace, train

HELD_OUT: Final = 0.1
MOST_HELD_OUT: Final = 2048
CHECKED: Final = 1024
"""How many draws a held-out loss is the mean of, at least."""


def denoiser_of(process: Any, architecture: Mapping[str, Any]) -> NetworkDenoiser:
    """Return an untrained denoiser of a product; its weights come from torch's own generator.

    Args:
        process: a product of paths.
        architecture: arguments of `ResidualMLP`.
    """
    ports = {name: _port(path) for name, path in process.parts.items()}
    laws = [
        (SiteClocks(known=0.4, dropped=0.1), 0.6),
        (FactorClocks(known=0.45, dropped=0.1), 0.4),
    ]
    return NetworkDenoiser(ResidualMLP(ports, **architecture), process, clocks=MixedClocks(laws))


def fit_denoiser(
    denoiser: NetworkDenoiser,
    data: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    plan: Plan,
    seed: int,
    on_progress: Callable[[Progress], None] | None = None,
) -> Trace:
    """Train on nine tenths of the rows; the others say which weights to keep.

    Args:
        denoiser: trained in place.
        data: states, and masks of the sites that are present.
        plan: budget and optimizer.
        seed: where batches and noise come from.
        on_progress: called after every step.
    """
    generator = torch.Generator().manual_seed(seed)
    n = state.batch_size(data[0])
    order = torch.randperm(n, generator=generator)
    size = min(int(HELD_OUT * n), MOST_HELD_OUT)
    held, kept = order[:size], order[size:]
    objective = Regression()

    def losses(index: Tensor, source: torch.Generator) -> Tensor:
        x_0, seen = ({name: part[index] for name, part in tree.items()} for tree in data)
        return objective(denoiser, x_0, observed=seen, generator=source)

    def validate() -> float:
        source = torch.Generator().manual_seed(seed + 1)
        batches = held.repeat(max(1, -(-CHECKED // size))).split(2 * plan.batch_size)
        return float(torch.cat([losses(index, source) for index in batches]).mean())

    return train(
        denoiser,
        lambda index: losses(kept[index], generator),
        len(kept),
        plan,
        generator,
        validate if size else None,
        on_progress,
    )


def _port(path: Path) -> FactorPort:
    """Return how a factor enters a network."""
    space = path.space
    if isinstance(space, Categorical):
        counts = space.cardinalities or (space.num_values,) * torch.Size(space.sites).numel()
        return CodePort(counts, space.sites, masked=path.noisy_space.masked)
    return RealPort(
        space.event_shape, space.sites, space.tangent_shape, periodic=isinstance(space, Torus)
    )
