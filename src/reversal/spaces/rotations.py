r"""Rotations of space: matrices, unit quaternions, rotation vectors, and the maps between them.

A rotation by the angle theta about the unit axis n has the quaternion, vector and matrix

.. math:: q = (\cos\tfrac\theta2,\; n \sin\tfrac\theta2), \qquad v = \theta n, \qquad
   R = \exp([v]_\times) = (w^2 - |u|^2) I + 2 u u^T + 2 w [u]_\times, \quad q = (w, u).

Quaternions are (w, x, y, z); q and -q are the same rotation. Vectors live in the body frame: the
library moves a rotation by :math:`R \leftarrow R \exp(v)`. Every map is differentiable, at the
angles 0 and pi too: an even power series replaces each quotient that would be 0/0, and the quotient
is given another denominator there, so that no branch not taken leaks a NaN into a gradient.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_COSINE = [(-0.25) ** k / math.factorial(2 * k) for k in range(8)]
_SINE = [0.5 * (-0.25) ** k / math.factorial(2 * k + 1) for k in range(8)]
_COTANGENT = [
    1 / 12,
    1 / 720,
    1 / 30240,
    1 / 1209600,
    1 / 47900160,
    691 / 1307674368000,
    1 / 74724249600,
]
_ARCTANGENT = [(-1.0) ** k / (2 * k + 1) for k in range(8)]


def exp(v: Tensor) -> Tensor:
    """Return the rotation by |v| about v: ``(..., 3)`` to ``(..., 3, 3)``."""
    return _matrix(quaternion_from_vector(v))


def log(R: Tensor) -> Tensor:
    r"""Return the rotation vector of R of length in [0, pi]: ``(..., 3, 3)`` to ``(..., 3)``.

    .. math:: v = 2 \operatorname{atan2}(|u|, |w|)\, \operatorname{sign}(w)\, u / |u| .

    At the angle pi the vectors v and -v are the same rotation; either is returned. The error is a
    few units of rounding at every angle, which arccos of the trace cannot reach at 0 or pi.
    """
    return vector_from_quaternion(quaternion_from_matrix(R))


def compose(R: Tensor, S: Tensor) -> Tensor:
    """Return the product R S in the full precision of the dtype; leading dimensions broadcast.

    A sum of outer products, so that no reduced-precision matrix unit of an accelerator rounds it.
    """
    first, second, third = (R[..., :, k : k + 1] * S[..., k : k + 1, :] for k in range(3))
    return first + second + third


def inverse(R: Tensor) -> Tensor:
    """Return the transpose, which is the inverse rotation."""
    return R.mT


def angle(R: Tensor) -> Tensor:
    """Return the angle in [0, pi], ``(..., 3, 3)`` to ``(...)``; its gradient is 0 at angle 0."""
    q = quaternion_from_matrix(R)
    return 2 * torch.atan2(_norm(q[..., 1:]), q[..., 0].abs())


def pull(u: Tensor, v: Tensor) -> Tensor:
    r"""Return the rate of u that moves exp(u) at the body velocity v: both ``(..., 3)``.

    .. math:: \dot u = v + \tfrac12 u \times v + c(|u|)\, u \times (u \times v), \qquad
       c(\theta) = \frac{1 - (\theta/2) \cot(\theta/2)}{\theta^2} ,

    the inverse of the differential of exp. Source: Munthe-Kaas (1998); Chirikjian (2012).
    """
    square = u.square().sum(-1, keepdim=True)
    is_small = square < 0.25
    few = torch.where(is_small, square, 0)
    theta = torch.where(is_small, 1, square).sqrt()
    many = (1 - theta / 2 / torch.tan(theta / 2)) / theta.square()
    once = torch.linalg.cross(u, v)
    share = torch.where(is_small, _polynomial(_COTANGENT, few), many)
    return v + once / 2 + share * torch.linalg.cross(u, once)


def orthonormalize(R: Tensor) -> Tensor:
    """Return a rotation near R, through its quaternion: ``(..., 3, 3)`` to ``(..., 3, 3)``.

    Meant for matrices that rounding has moved: it lies at up to twice the distance of the nearest
    rotation, 1.2 times on average (measured). Whatever the input, the output is a rotation.
    """
    return _matrix(quaternion_from_matrix(R))


def quaternion_from_matrix(R: Tensor) -> Tensor:
    r"""Return the unit quaternion with w >= 0: ``(..., 3, 3)`` to ``(..., 4)``.

    The matrix :math:`4 q q^T` is linear in R; its row with the largest diagonal entry, at least 1,
    is normalized. Source: Shepperd (1978); Markley (2008).
    """
    R = R.flatten(-2)
    a, b, c, d, e, f, g, h, i = R.unbind(-1)
    wx, wy, wz = h - f, c - g, d - b
    xy, xz, yz = b + d, c + g, f + h
    squares = torch.stack((1 + a + e + i, 1 + a - e - i, 1 - a + e - i, 1 - a - e + i), -1)
    w, x, y, z = squares.unbind(-1)
    rows = torch.stack((w, wx, wy, wz, wx, x, xy, xz, wy, xy, y, yz, wz, xz, yz, z), -1)
    pivot = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    row = rows.unflatten(-1, (4, 4)).gather(-2, pivot).squeeze(-2)
    q = row / row.square().sum(-1, keepdim=True).sqrt()
    return torch.where(q[..., :1] < 0, -q, q)


def matrix_from_quaternion(q: Tensor) -> Tensor:
    """Return the rotation of q / |q|: ``(..., 4)`` to ``(..., 3, 3)``; q is not zero."""
    return _matrix(q / q.detach().abs().amax(-1, keepdim=True))


def quaternion_from_vector(v: Tensor) -> Tensor:
    """Return the unit quaternion of a rotation vector: ``(..., 3)`` to ``(..., 4)``."""
    square = v.square().sum(-1, keepdim=True)
    is_small = square < 0.25
    few = torch.where(is_small, square, 0)
    half = torch.where(is_small, 1, square).sqrt() / 2
    w = torch.where(is_small, _polynomial(_COSINE, few), half.cos())
    scale = torch.where(is_small, _polynomial(_SINE, few), half.sin() / (2 * half))
    return torch.cat((w, scale * v), -1)


def vector_from_quaternion(q: Tensor) -> Tensor:
    """Return the rotation vector of q, of any length and sign: ``(..., 4)`` to ``(..., 3)``."""
    q = torch.where(q[..., :1] < 0, -q, q)
    w, u = q[..., :1], q[..., 1:]
    square = u.square().sum(-1, keepdim=True)
    is_small = square < 0.01 * w.square()
    base = torch.where(is_small, w, 1)
    ratio = torch.where(is_small, square, 0) / base.square()
    length = torch.where(is_small, 1, square).sqrt()
    few, many = _polynomial(_ARCTANGENT, ratio) / base, torch.atan2(length, w) / length
    return 2 * torch.where(is_small, few, many) * u


def _matrix(q: Tensor) -> Tensor:
    w, x, y, z = q.unbind(-1)
    twice = 2 / (w * w + x * x + y * y + z * z)
    a, b, c = twice * x, twice * y, twice * z
    wx, wy, wz = w * a, w * b, w * c
    xx, yy, zz = x * a, y * b, z * c
    xy, xz, yz = x * b, x * c, y * c
    first = (1 - yy - zz, xy - wz, xz + wy)
    second = (xy + wz, 1 - xx - zz, yz - wx)
    third = (xz - wy, yz + wx, 1 - xx - yy)
    return torch.stack(first + second + third, -1).unflatten(-1, (3, 3))


def _norm(u: Tensor) -> Tensor:
    """Length, without underflow, with gradient 0 at 0."""
    largest = u.detach().abs().amax(-1, keepdim=True)
    scale = torch.where(largest > 0, largest, 1)
    square = (u / scale).square().sum(-1)
    is_zero = square == 0
    return scale.squeeze(-1) * torch.where(is_zero, 1, square).sqrt() * ~is_zero


def _polynomial(coefficients: list[float], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
