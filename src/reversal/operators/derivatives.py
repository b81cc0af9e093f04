r"""Derivatives of functions along the tangents of one factor, by automatic differentiation.

A function of a state is differentiated where the space walks, :math:`v \mapsto f(\exp_x v)` at
v = 0. Its gradient there is the gradient of f, its second derivative the Riemannian Hessian; the
trace of the derivative of a vector field in a frame without divergence (the axes of R^d, angles,
body frames of rotations, the free coordinates of a simplex) is the divergence. All of it is
vector-Jacobian products, and may be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.operators.traces import Traces

Function = Callable[[Any], Tensor]
"""A real function of a state: a batch of B states to ``(B,)``, item by item."""
Field = Callable[[Any], Tensor]
"""A tangent vector field of one factor: B states to ``(B, *tangent_shape)``."""
Matrix = Callable[[Any], Callable[[Tensor], Tensor]]
"""A field of linear maps of the tangents of one factor."""


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

    def gradient(self, f: Function, x: Any) -> Tensor:
        """The gradient of f, ``(B, *tangent_shape)``."""
        with torch.enable_grad():
            v = self._origin(x)
            return derivative(f(self._walk(x, v)).sum(), v)

    def second(
        self, f: Function, x: Any, pull: Callable[[Tensor], Tensor], traces: Traces = Traces()
    ) -> tuple[Tensor, Tensor]:
        r"""The gradient of f, ``(B, *tangent_shape)``, and :math:`a : \nabla^2 f`, ``(B,)``.

        ``pull`` multiplies by a. Cost: one backward pass and one per direction.
        """
        with torch.enable_grad():
            v = self._origin(x)
            slope = derivative(f(self._walk(x, v)).sum(), v)
            total = v.new_zeros(len(v))
            for z in traces.directions(v):
                total = total + inner(derivative((slope * z).sum(), v), pull(z))
            return slope, total

    def divergence(self, field: Field, x: Any, traces: Traces = Traces()) -> Tensor:
        """The divergence of a field, ``(B,)``; one backward pass per direction."""
        with torch.enable_grad():
            v = self._origin(x)
            return traces.trace(field(self._walk(x, v)), v)

    def rows(self, matrix: Matrix, x: Any, traces: Traces = Traces()) -> Tensor:
        """The divergence of every row of a matrix field, ``(B, *tangent_shape)``.

        ``matrix`` maps states to the product with a tangent vector. Cost: two backward passes per
        direction where the matrix depends on the state, none where it does not.
        """
        with torch.enable_grad():
            v = self._origin(x)
            pull = matrix(self._walk(x, v))
            total = torch.zeros_like(v)
            for z in traces.directions(v):
                total = total + along(pull(z), v, z)
            return total

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


def along(values: Tensor, v: Tensor, z: Tensor) -> Tensor:
    """The derivative of values along direction z of v, by a vector-Jacobian product of one."""
    if not values.requires_grad:
        return torch.zeros_like(values)
    weight = torch.zeros_like(values).requires_grad_()
    pulled = derivative((values * weight).sum(), v)
    return derivative((pulled * z).sum(), weight)


def inner(v: Tensor, w: Tensor) -> Tensor:
    """The inner product of tangent vectors, ``(B,)``."""
    return state.sum_sites(v * w)
