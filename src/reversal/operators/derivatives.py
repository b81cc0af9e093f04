r"""Derivatives of functions along the tangents of one factor, by automatic differentiation.

A function of a state is differentiated where the space walks, :math:`v \mapsto f(\exp_x v)` at
v = 0. Its gradient there is the gradient of f, its second derivative the Riemannian Hessian; the
trace of the derivative of a vector field in a frame without divergence (the axes of R^d, angles,
body frames of rotations, the free coordinates of a simplex) is the divergence. All of it is
vector-Jacobian products, and may be differentiated again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import noise, state
from reversal.noise import Randomness

Function = Callable[[Any], Tensor]
"""A real function of a state: a batch of B states to ``(B,)``, item by item."""
Field = Callable[[Any], Tensor]
"""A tangent vector field of one factor: B states to ``(B, *tangent_shape)``."""


@final
@dataclass(frozen=True)
class Tangent:
    """The tangent directions of factor ``name`` of ``space``; of the space itself if plain.

    A function is called on batches whose item i lies near item i of x, so that it may close over
    quantities of x.
    """

    space: Any
    name: str = ""

    @property
    def part(self) -> Any:
        """The factor."""
        return state.take(self.space.parts, self.name)

    @property
    def dimension(self) -> int:
        """The number of tangent directions T."""
        return math.prod(self.part.tangent_shape)

    def gradient(self, f: Function, x: Any) -> Tensor:
        """The gradient of f, ``(B, *tangent_shape)``."""
        with torch.enable_grad():
            v = self._origin(x)
            return derivative(f(self._walk(x, v)).sum(), v)

    def hessian(self, f: Function, x: Any) -> tuple[Tensor, Tensor]:
        """Gradient and Hessian of f, ``(B, T)`` and ``(B, T, T)``; cost T + 1 backward passes."""
        with torch.enable_grad():
            v = self._origin(x)
            slope = derivative(f(self._walk(x, v)).sum(), v).flatten(1)
            rows = [derivative(slope[:, i].sum(), v).flatten(1) for i in range(self.dimension)]
            return slope, torch.stack(rows, 1)

    def jacobian(self, field: Field, x: Any) -> Tensor:
        """The derivative of component i along direction j, ``(B, T, T)``; T backward passes."""
        with torch.enable_grad():
            v = self._origin(x)
            values = field(self._walk(x, v)).flatten(1)
            rows = [derivative(part.sum(), v).flatten(1) for part in values.unbind(1)]
            return torch.stack(rows, 1)

    def divergence(self, field: Field, x: Any) -> Tensor:
        """The divergence of a field, ``(B,)``; T backward passes."""
        return self.jacobian(field, x).diagonal(dim1=1, dim2=2).sum(1)

    def probe(self, field: Field, x: Any, count: int, generator: Randomness) -> Tensor:
        r"""An unbiased estimate of the divergence, :math:`z^T (\partial V / \partial v) z`.

        Signs z are drawn ``count`` times; one backward pass each. Source: Hutchinson (1989).
        """
        with torch.enable_grad():
            v = self._origin(x)
            values = field(self._walk(x, v))
            total = torch.zeros((), dtype=values.dtype, device=values.device)
            for _ in range(count):
                z = 1 - 2 * (noise.uniform(v.shape, v, generator) < 0.5).to(v)
                total = total + z * derivative((values * z).sum(), v)
        return (total / count).flatten(1).sum(1)

    def _origin(self, x: Any) -> Tensor:
        own = state.take(x, self.name)
        return own.new_zeros((len(own), *self.part.tangent_shape)).requires_grad_()

    def _walk(self, x: Any, v: Tensor) -> Any:
        moved = self.part.move(state.take(x, self.name), v)
        return {**x, self.name: moved} if self.space.factors else moved


def derivative(total: Tensor, v: Tensor) -> Tensor:
    """The gradient of a sum, which may be differentiated again; 0 where it does not depend on v."""
    if not total.requires_grad:
        return torch.zeros_like(v)
    return torch.autograd.grad(total, v, create_graph=True, materialize_grads=True)[0]
