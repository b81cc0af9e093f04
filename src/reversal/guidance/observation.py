r"""A linear observation with normal noise: y = A x_0 + noise.

.. math:: \log p(y | x_0) = -\tfrac12 |\hat y - \hat A x_0|^2 - \textstyle\sum_i \log s_i
   - \tfrac m2 \log 2 \pi, \qquad \hat A = S^{-1} A, \; \hat y = S^{-1} y, \; S = diag(s) .

Everything inside is whitened: the noise has variance 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor

from reversal.errors import CapabilityError, SpaceError, listed

LINEAR: float = 1e-3
"""How far from linear a callable may be, relative to its values, in float32."""


@final
class LinearObservation:
    """What was seen of clean data, and a log-likelihood ``(x_0) -> (B,)`` by itself.

    Args:
        operator: A, a matrix (m, d) on the flattened entries of a state, or a linear callable that
            maps ``(B, *E)`` to ``(B, m)``; its adjoint is found by differentiation.
        y: ``(m,)``, or ``(b, m)``: each row is then that of B / b items that follow one another.
        noise: the standard deviation of the noise, a number > 0 or ``(m,)``.
        factor: which factor of a product is seen.

    Raises:
        SpaceError: if the shapes do not fit, y is not finite, or the noise is not positive.
    """

    def __init__(
        self,
        operator: Tensor | Callable[[Tensor], Tensor],
        y: Tensor,
        noise: float | Tensor,
        factor: str | None = None,
    ) -> None:
        std = torch.as_tensor(noise, dtype=y.dtype, device=y.device)
        if y.ndim not in (1, 2) or not y.is_floating_point() or not bool(y.isfinite().all()):
            raise SpaceError(
                f"Expected y as finite reals of shape (m,) or (b, m), got {tuple(y.shape)} of "
                f"{y.dtype}. Leave out what was not seen, with its row of the operator."
            )
        if std.shape not in ((), y.shape[-1:]) or not bool(((std > 0) & std.isfinite()).all()):
            raise SpaceError(
                f"Expected the noise as a standard deviation > 0, or {y.shape[-1]} of them, got "
                f"{noise}. What is known without noise is conditioned on by given=, or RePaint."
            )
        if isinstance(operator, Tensor) and operator.shape[:-1] != y.shape[-1:]:
            raise SpaceError(
                f"Expected an operator of shape ({y.shape[-1]}, d) for y of shape "
                f"{tuple(y.shape)}, got {tuple(operator.shape)}. Give one row per number seen."
            )
        self.operator, self.y, self.factor = operator, y, factor
        self.std = std.expand(y.shape[-1])

    def __repr__(self) -> str:
        at = "" if self.factor is None else f" of {self.factor}"
        return f"LinearObservation({self.y.shape[-1]} numbers{at})"

    @property
    def size(self) -> int:
        """m."""
        return self.y.shape[-1]

    def __call__(self, x_0: Any) -> Tensor:
        """Return log p(y | x_0), ``(B,)``, in nats."""
        return self.log_prob(self.residual(self.seen(x_0)).square().sum(-1))

    def log_prob(self, square: Tensor) -> Tensor:
        """Return the normal log-density, given the square length of what is whitened."""
        return -square / 2 - self.std.to(square).log().sum() - self.size / 2 * math.log(2 * math.pi)

    def seen(self, x_0: Any) -> Any:
        """Return the factor that is seen, of a tree."""
        return x_0[self.factor] if self.factor is not None else x_0

    def apply(self, x: Tensor) -> Tensor:
        """Return A x, whitened, ``(B, m)``."""
        if not isinstance(self.operator, Tensor):
            return self.operator(x) / self.std.to(x)
        return x.flatten(1) @ (self.operator / self.std[:, None].to(self.operator)).to(x).mT

    def adjoint(self, w: Tensor, like: Tensor) -> Tensor:
        """Return the transpose of ``apply`` at w, ``(B, *E)``; ``like`` is a state."""
        if isinstance(self.operator, Tensor):
            matrix = (self.operator / self.std[:, None].to(self.operator)).to(w)
            return (w @ matrix).view(len(w), *like.shape[1:])
        with torch.enable_grad():
            x = like.new_zeros((len(w), *like.shape[1:])).requires_grad_()
            return torch.autograd.grad(self.apply(x), x, w)[0]

    def residual(self, x_0: Tensor) -> Tensor:
        """Return y - A x_0, whitened, ``(B, m)``."""
        y = (self.y / self.std).to(x_0)
        if y.ndim == 2:
            if len(y) == 0 or len(x_0) % len(y):
                raise SpaceError(
                    f"Expected as many items as rows of y, {len(y)}, or a multiple, got "
                    f"{len(x_0)}. Each row of y is that of items that follow one another."
                )
            y = y.repeat_interleave(len(x_0) // len(y), 0)
        return y - self.apply(x_0)

    def check(self, path: Any) -> None:
        """Raise unless the operator is linear and maps states of a path to y.

        Raises:
            SpaceError: if shapes or names do not fit.
            CapabilityError: if a callable is not linear.
        """
        space = seen_part(path, self.factor).space
        width = math.prod(space.event_shape)
        if isinstance(self.operator, Tensor):
            if self.operator.shape[1:] != (width,):
                raise SpaceError(
                    f"Expected an operator of shape ({self.size}, {width}) on {space}, got "
                    f"{tuple(self.operator.shape)}. Flatten the entries of a state."
                )
            return
        u = torch.sin(torch.arange(2.0 * width)).to(self.y).view(2, *space.event_shape)
        image = self.operator(torch.cat([u, u.sum(0, keepdim=True), torch.zeros_like(u[:1])]))
        if image.shape != (4, self.size):
            raise SpaceError(
                f"Expected an operator that maps (B, *{space.event_shape}) to (B, {self.size}), "
                f"got {tuple(image.shape)} for B = 4. Flatten what it returns."
            )
        error = torch.maximum((image[0] + image[1] - image[2]).abs().max(), image[3].abs().max())
        if not bool(error <= LINEAR * image.abs().max()):
            raise CapabilityError(
                f"Expected a linear operator, got one that is off by {float(error):.3g}. Take a "
                f"constant off y, or give DPS() any differentiable log_likelihood."
            )


def seen_part(path: Any, factor: str | None) -> Any:
    """Return the part of a path that is seen.

    Raises:
        SpaceError: if there is none of that name.
    """
    parts = path.parts
    if isinstance(parts, Mapping) is (factor is not None) and (factor is None or factor in parts):
        return path if factor is None else parts[factor]
    known = f"factor= as one of {listed(parts)}" if isinstance(parts, Mapping) else "no factor="
    raise SpaceError(f"Expected {known} under {path}, got {factor!r}. Say which part is seen.")
