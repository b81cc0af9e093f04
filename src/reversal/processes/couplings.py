r"""Couplings: which x_1 belongs to which x_0, so that straight lines between them cross less.

Whatever the coupling, its marginals are the two laws, and so is what is sampled; only the paths
differ. Source: Albergo and Vanden-Eijnden (2023); Tong et al. (2024) and Pooladian et al. (2023)
for minibatches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import noise
from reversal.core import Prior
from reversal.errors import CapabilityError, SpaceError
from reversal.noise import Randomness


class Coupling(ABC):
    """How the two ends of a path belong together; ``source`` is the law of x_1, if it has one."""

    source: Prior | None

    @final
    def pair(
        self,
        x_0: Tensor,
        x_1: Tensor | None = None,
        cond: Any = None,
        generator: Randomness = None,
    ) -> Tensor:
        """Return the x_1 that belongs to each x_0.

        Args:
            x_0: a batch of data, ``(B, *E)``.
            x_1: a batch of the other law, in any order unless the ends come in pairs; draws of the
                source if None.
            cond: the condition of each x_0.
            generator: where randomness comes from.

        Raises:
            SpaceError: if there is neither x_1 nor a source, or x_1 is of another shape.
        """
        if x_1 is None and self.source is not None:
            x_1 = self.source.sample(len(x_0), generator, x_0)
        if x_1 is None or x_1.shape != x_0.shape:
            got = "none" if x_1 is None else f"shape {tuple(x_1.shape)}"
            raise SpaceError(
                f"Expected one x_1 for every x_0, of shape {tuple(x_0.shape)}, under {self}, got "
                f"{got}. Pass x_1=... beside x_0."
            )
        return self.ordered(x_0, x_1, cond, generator)

    @abstractmethod
    def ordered(self, x_0: Tensor, x_1: Tensor, cond: Any, generator: Randomness) -> Tensor:
        """Put a batch of x_1, one for every x_0, in the order of the x_0."""


@final
@dataclass(frozen=True)
class Paired(Coupling):
    """The ends come in pairs: every x_0 with its x_1, in training and in sampling."""

    source = None

    def ordered(self, x_0: Tensor, x_1: Tensor, cond: Any, generator: Randomness) -> Tensor:
        """The x_1 as they were handed over."""
        return x_1


@final
@dataclass(frozen=True)
class Unpaired(Coupling):
    """Independent ends.

    Args:
        source: the law of x_1; without one every batch is handed over, in training and sampling.
    """

    source: Prior | None = None

    def ordered(self, x_0: Tensor, x_1: Tensor, cond: Any, generator: Randomness) -> Tensor:
        """The x_1 as they come."""
        return x_1


@final
@dataclass(frozen=True)
class OptimalTransport(Coupling):
    r"""The plan of least squared distance between a batch of x_0 and one of x_1.

    .. math:: \min_P \sum_{ij} P_{ij} \big(|x_0^i - x_1^j|^2 + w\, d(c_i, c'_j)\big)
       + \epsilon \sum_{ij} P_{ij} \log P_{ij} ,

    over plans P with uniform marginals. At entropy 0 it is a permutation, every x_1 used once;
    otherwise each x_0 draws its x_1 from its row of the plan.

    Args:
        source: the law of x_1; without one every batch is handed over.
        entropy: :math:`\epsilon \ge 0`, in units of squared distance.
        condition: w >= 0. With conditions, a plain plan makes x_1 depend on the condition, which at
            sampling time it does not; the x_1 get conditions c' of the batch at random, and w is
            what it costs to give an x_1 away to another one. d is the squared distance, 0 or 1 for
            integers.

    It couples the items of a batch, as nothing else does. Cost: B^2 numbers; exact, O(B^3) on the
    CPU. Source: Tong et al. (2024), Algorithm 3; Cheng and Schwing (2025) for w.
    """

    source: Prior | None = None
    entropy: float = 0.0
    condition: float = 0.0

    def __post_init__(self) -> None:
        if not (self.entropy >= 0 and self.condition >= 0):
            raise SpaceError(
                f"Expected entropy >= 0 and condition >= 0, got {self.entropy} and "
                f"{self.condition}. Leave them out for the exact plan."
            )

    def ordered(self, x_0: Tensor, x_1: Tensor, cond: Any, generator: Randomness) -> Tensor:
        """Put the x_1 of a batch in the order of the plan."""
        if len(x_0) == 0:
            return x_1
        cost = torch.cdist(x_0.flatten(1).double(), x_1.flatten(1).double()) ** 2
        if self.condition:
            cost = cost + self.condition * _apart(cond, len(x_0), generator)
        if self.entropy == 0:
            return x_1[_assignment(cost)]
        return x_1[noise.categorical(sinkhorn(cost, self.entropy), generator)]


@final
@dataclass(frozen=True, eq=False)
class Samples(Prior):
    """The law of a data set: its rows, equally likely. It has no density."""

    rows: Tensor

    def sample(self, n: int, generator: Randomness = None, like: Tensor | None = None) -> Tensor:
        """Draw n rows, with replacement."""
        rows = self.rows if like is None else self.rows.to(like)
        return rows[noise.integers(len(rows), (n,), rows, generator)]

    def site_log_prob(self, x: Tensor) -> Tensor:
        """Refused."""
        raise CapabilityError(
            "Expected a law with a density, got samples. Use a normal source, "
            "reversal.processes.NormalPrior(space, std)."
        )


def sinkhorn(cost: Tensor, entropy: float, tolerance: float = 1e-6, most: int = 10_000) -> Tensor:
    """Return the entropic plan between uniform laws, ``(n, m)``, in logarithms until the end.

    Stops where the row sums are off by ``tolerance`` of their value, or after ``most`` rounds.
    Source: Cuturi (2013); Peyre and Cuturi (2019), section 4.4.
    """
    kernel = -cost / entropy
    columns = torch.zeros_like(kernel[0])
    for turn in range(most):
        rows = -(kernel + columns).logsumexp(1)
        columns = -(kernel + rows[:, None]).logsumexp(0)
        if turn % 10 == 9:
            sums = (kernel + rows[:, None] + columns).logsumexp(1).exp()
            if bool(((sums * len(kernel) / len(columns) - 1).abs() < tolerance).all()):
                break
    plan = (kernel + rows[:, None] + columns).exp()
    return plan / plan.sum()


def _assignment(cost: Tensor) -> Tensor:
    from scipy.optimize import linear_sum_assignment

    return torch.as_tensor(linear_sum_assignment(cost.cpu().numpy())[1], device=cost.device)


def _apart(cond: Any, n: int, generator: Randomness) -> Tensor:
    """How far the condition of each x_0 is from the one that each x_1 got."""
    if not isinstance(cond, Tensor) or len(cond) != n:
        raise SpaceError(
            f"Expected a tensor of {n} conditions for condition > 0, got {type(cond).__name__}. "
            f"Pass cond=..., or leave condition at 0."
        )
    flat = cond.reshape(n, -1)
    order = noise.uniform((n,), flat.double(), generator).argsort()
    if flat.is_floating_point():
        return torch.cdist(flat.double(), flat[order].double()) ** 2
    return (flat[:, None] != flat[order]).any(-1).double()
