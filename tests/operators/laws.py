"""Laws on which the theory is checked: known marginals, and a quadrature for their means.

Each ``Case`` has an operator, the conditional laws q(x | i) of a few atoms i, their mixture q, a
wrong log beta, and nodes with weights that integrate over the space.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import reversal as rv
from reversal import state
from reversal.operators import Local
from reversal.testing.quadrature import rule_of
from reversal.testing.trial import draw_states

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
RATES = torch.tensor(
    [
        [0.0, 0.7, 0.1, 0.0, 0.3],
        [0.2, 0.0, 0.9, 0.1, 0.0],
        [0.4, 0.2, 0.0, 0.6, 0.1],
        [0.0, 0.5, 0.3, 0.0, 0.8],
        [0.6, 0.1, 0.0, 0.2, 0.0],
    ],
    dtype=torch.float64,
)
"""Rates of a chain on five states that is not reversible."""
CONCENTRATION = torch.tensor([1.5, 2.0, 2.5], dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """An operator, conditional laws and their mixture, a wrong log beta, and a quadrature."""

    name: str
    operator: Local
    conditionals: list[Callable[[Any], Tensor]]
    log_beta: Callable[[Any], Tensor]
    nodes: Any
    log_weights: Tensor
    tolerance: float = 1e-9

    def log_q(self, x: Any) -> Tensor:
        """The log-density of the mixture."""
        logs = [law(x) + w.log() for law, w in zip(self.conditionals, WEIGHTS, strict=True)]
        return torch.stack(logs).logsumexp(0)

    def mean(self, values: Tensor, log_density: Callable[[Any], Tensor] | None = None) -> Tensor:
        """The mean of values at the nodes, under q if no density is given."""
        log_density = self.log_q if log_density is None else log_density
        mass = (log_density(self.nodes) + self.log_weights).exp()
        return torch.where(mass > 0, mass * values, 0.0).sum().detach()

    def __str__(self) -> str:
        return self.name


def generator_of_chain(x: Tensor) -> rv.Generator:
    """The rates of the chain at x."""
    return rv.Generator(jumps=rv.core.DenseJumps(RATES[x], RATES.T[x]))


def chain() -> Case:
    """Five states; the conditionals are rows of the matrix exponential."""
    forward = torch.matrix_exp(0.7 * (RATES - torch.diag(RATES.sum(1)))).log()
    beta = torch.tensor([0.3, -0.4, 0.8, 0.1, -0.9], dtype=torch.float64)
    return Case(
        "chain",
        Local(rv.Categorical(5), generator_of_chain),
        [lambda x, k=k: forward[k][x] for k in (0, 2, 3)],
        lambda x: beta[x],
        torch.arange(5),
        torch.zeros(5, dtype=torch.float64),
    )


def of_process(name: str, process: Any, t: float, log_beta: Any, nodes: Any, logs: Any) -> Case:
    """A process with a kernel, from three atoms."""
    generator = torch.Generator().manual_seed(3)
    atoms = draw_states(process.space, 3, generator)

    def conditional(k: int) -> Callable[[Any], Tensor]:
        def log_density(x: Any) -> Tensor:
            n = state.batch_size(x)
            x_0 = state.map(lambda part: part[k : k + 1].expand(n, *part.shape[1:]), atoms)
            return process.kernel(x_0, torch.full((n,), t, dtype=torch.float64)).log_prob(x)

        return log_density

    laws = [conditional(k) for k in range(3)]
    return Case(name, Local.of(process, t), laws, log_beta, nodes, logs)


def plane() -> Case:
    """R^2 under a variance-preserving process: the trapezoidal rule."""
    axis = torch.linspace(-9, 9, 91, dtype=torch.float64)
    nodes = torch.cartesian_prod(axis, axis)
    logs = torch.full((len(nodes),), 2 * math.log(18 / 90), dtype=torch.float64)
    process = rv.Gaussian(rv.Euclidean(2))
    beta = lambda x: -0.4 * x[:, 0] ** 2 - 0.3 * x[:, 1] ** 2 + 0.5 * torch.sin(x[:, 0] + x[:, 1])  # noqa: E731
    return of_process("R^2", process, 0.4, beta, nodes, logs)


def torus() -> Case:
    """Two angles under Brownian motion."""
    axis = (torch.arange(48, dtype=torch.float64) / 48 * 2 - 1) * math.pi
    nodes = torch.cartesian_prod(axis, axis)
    logs = torch.full((len(nodes),), -2 * math.log(48), dtype=torch.float64)
    beta = lambda x: 0.6 * torch.sin(x[:, 0]) * torch.cos(x[:, 1]) + 0.3 * torch.cos(2 * x[:, 1])  # noqa: E731
    return of_process("torus", rv.Brownian(rv.Torus(2)), 0.35, beta, nodes, logs)


def rotations() -> Case:
    """SO(3) under Brownian motion; Euler angles, exact up to degree 23."""
    space = rv.SO3()
    rule = rule_of(space)
    assert rule is not None
    nodes, logs = rule.nodes(space, space.example(2, torch.zeros((), dtype=torch.float64)))
    matrix = torch.tensor([[0.4, -0.2, 0.1], [0.3, 0.1, -0.5], [0.2, 0.2, 0.3]]).double()
    return of_process(
        "SO(3)",
        rv.Brownian(space),
        0.45,
        lambda x: (matrix * x).sum((1, 2)),
        nodes,
        logs.reshape(len(nodes)),
    )


def wright_fisher(x: Tensor) -> rv.Generator:
    r"""Drift (alpha_i - theta x_i) / 2 and covariance x_i (delta_ij - x_j), free coordinates."""
    free = x[:, :-1]
    drift = (CONCENTRATION[:-1] - CONCENTRATION.sum() * free) / 2
    return rv.Generator(drift, torch.diag_embed(free) - free[:, :, None] * free[:, None], lift=1)


def simplex() -> Case:
    """Three probabilities under Wright-Fisher noise; Dirichlet laws, the parts of its kernel."""
    nodes, weights = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(40))
    unit, share = (nodes + 1) / 2, weights / 2
    u, v = torch.meshgrid(unit, unit, indexing="ij")
    points = torch.stack((u, (1 - u) * v, (1 - u) * (1 - v)), -1).reshape(-1, 3)
    logs = (share[:, None] * share * (1 - u)).log().flatten()
    sharp = torch.tensor([[4.0, 5.0, 6.0], [7.0, 4.0, 4.0], [4.0, 8.0, 5.0]]).double()
    laws = [torch.distributions.Dirichlet(row) for row in sharp]
    return Case(
        "simplex",
        Local(rv.Simplex(3), wright_fisher),
        [lambda x, law=law: law.log_prob(x) for law in laws],
        lambda x: 2 * x[:, 0] ** 2 + x[:, 1] * x[:, 2] - 0.5 * torch.sin(3 * x[:, 1]),
        points,
        logs,
    )


def product() -> Case:
    """Three categories and a number, jointly."""
    line = torch.linspace(-9, 9, 121, dtype=torch.float64)
    nodes = {
        "word": torch.arange(3).repeat_interleave(len(line)),
        "place": line.repeat(3)[:, None],
    }
    logs = torch.full((len(nodes["word"]),), math.log(18 / 120), dtype=torch.float64)
    process = rv.Independent(
        word=rv.Uniform(rv.Categorical(3)), place=rv.Gaussian(rv.Euclidean(1), rv.Cosine())
    )
    slope = torch.tensor([0.7, -0.2, 0.4], dtype=torch.float64)

    def beta(x: Any) -> Tensor:
        place = x["place"].squeeze(1)
        return slope[x["word"]] * place - 0.45 * place**2

    return of_process("product", process, 0.5, beta, nodes, logs)


CASES = [chain(), plane(), torus(), rotations(), simplex(), product()]
