"""Implicit losses in one or several processes: ``processes.py KIND``, ``copies`` or ``shards``.

The first process prints, as JSON and for every loss of ``LOSSES``, the losses of the whole batch
and the gradient of their mean, in float64.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import reversal as rv
from reversal.training.distributed import World, world_of
from reversal.training.sharding import whole

ROWS = 13


class Network(nn.Module):
    """A perceptron of a state and its time; a single output has no bias, which no score reads."""

    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(size + 1, 16), nn.SiLU(), nn.Linear(16, outputs, outputs > 1)
        )
        source = torch.Generator().manual_seed(0)
        self.double().load_state_dict(
            {
                name: torch.randn(value.shape, generator=source, dtype=torch.float64) / 3
                for name, value in self.state_dict().items()
            }
        )

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        seen = torch.cat((x.double().flatten(1), t[:, None]), 1)
        return self.layers(seen)


def simulated() -> tuple[nn.Module, Callable[[nn.Module], Any], Tensor]:
    """A nonlinear drift on R^3, without a kernel, by its score."""
    space = rv.Euclidean(3)
    process = rv.FromGenerator(
        space,
        lambda x: rv.Generator(x.sin() - x, torch.ones_like(x)),
        rv.Gaussian(space).prior,
        steps=5,
    )
    source = torch.Generator().manual_seed(1)
    x_0 = torch.randn(ROWS, 3, generator=source, dtype=torch.float64)
    return Network(3, 3), lambda net: rv.NetworkDenoiser(net, process, rv.Score()), x_0


def scalar() -> tuple[nn.Module, Callable[[nn.Module], Any], Tensor]:
    """The same by an energy, whose score is itself a derivative."""
    network, made, x_0 = simulated()
    process = made(network).process
    return Network(3, 1), lambda net: rv.Energy(lambda *a: net(*a).squeeze(1), process), x_0


def jumping() -> tuple[nn.Module, Callable[[nn.Module], Any], Tensor]:
    """Codes at two sites."""
    process = rv.Uniform(rv.Categorical(3, 2))
    x_0 = torch.randint(3, (ROWS, 2), generator=torch.Generator().manual_seed(1))

    def denoiser(net: nn.Module) -> Any:
        return rv.NetworkDenoiser(lambda *a: net(*a).view(-1, 2, 3), process)

    return Network(2, 6), denoiser, x_0


LOSSES = {
    "probes": (simulated, rv.Implicit(probes=2)),
    "axes": (simulated, rv.Implicit()),
    "energy": (scalar, rv.Implicit(probes=1)),
    "jumps": (jumping, rv.Implicit(jumps=2)),
}


def measured(name: str, world: World) -> tuple[list[float], list[list[float]]]:
    """The losses of all rows, and the gradient of their mean, parameter by parameter, of step 2."""
    make, objective = LOSSES[name]
    network, denoiser, x_0 = make()
    source, seen = torch.Generator().manual_seed(2), []

    def losses(index: Tensor) -> Tensor:
        noise = world.noise(source, ROWS)
        seen.append(objective(denoiser(network), x_0[index], generator=noise))
        return seen[-1]

    mean = world.wrapped(network, losses)
    for _ in range(2):
        network.zero_grad()
        mean(torch.arange(ROWS)).backward()
    slopes = [whole(p.grad).flatten().tolist() for p in network.parameters() if p.grad is not None]
    return world.joined(seen[1].detach(), ROWS).tolist(), slopes


def main(kind: str) -> None:
    world = world_of(shard=kind == "shards")
    found = {name: measured(name, world) for name in LOSSES}
    if world.is_first:
        print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
