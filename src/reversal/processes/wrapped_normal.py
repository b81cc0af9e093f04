r"""Brownian motion on the circle [-pi, pi): wrapped normal density, score and exact bridge.

With respect to the uniform probability, for the difference delta and the operational time v,

.. math::
   f(\delta, v) = \sqrt{2\pi/v} \sum_{k \in Z} e^{-(\delta + 2 \pi k)^2 / 2v}
                = 1 + 2 \sum_{n \ge 1} e^{-n^2 v / 2} \cos n \delta .

The images -1, 0 and 1 reach float64 for v < 1, and 9 terms of the series for v >= 1. Times below
1e-12 in float64, 1e-10 in float32, are read as that. Source: Jammalamadaka and SenGupta (2001),
chapter 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reversal import noise
from reversal.noise import Randomness
from reversal.spaces.torus import wrap

_TERMS = 9
_BROAD = 1.0
_UNIFORM = 80.0
_TURNS = 17
_PI_REST = {torch.float64: 1.2246467991473532e-16, torch.float32: -8.742278012618954e-08}


def floor(dtype: torch.dtype) -> float:
    """Return the least operational time that the densities tell from 0."""
    return 1e-12 if dtype == torch.float64 else 1e-10


def log_density(delta: Tensor, v: Tensor) -> Tensor:
    """Return log f(delta, v), finite for every v; delta is any angle, v broadcasts with it."""
    v = v.clamp(min=floor(v.dtype))
    distance, _ = _distance(delta)
    weights = _harmonics(v.clamp(min=_BROAD))
    image = v.clamp(max=_BROAD)
    nearer, farther = _image_decays(distance, image)
    scale = (2 * math.pi / image).log() / 2
    images = scale - distance * distance / (2 * image) + (nearer.exp() + farther.exp()).log1p()
    return torch.where(v < _BROAD, images, cosine_sum(weights, distance).log1p())


def score(delta: Tensor, v: Tensor) -> Tensor:
    """Return the derivative of log f in delta: about -delta/v, and 0 at 0 and at pi."""
    v = v.clamp(min=floor(v.dtype))
    distance, sign = _distance(delta)
    weights = _harmonics(v.clamp(min=_BROAD))
    slopes = [n * weight for n, weight in enumerate(weights, 1)]
    series = -sine_sum(slopes, distance) / (1 + cosine_sum(weights, distance))
    images = _score_images(distance, v.clamp(max=_BROAD))
    return sign * torch.where(v < _BROAD, images, series)


def bridge_log_density(x_0: Tensor, x_s: Tensor, x_t: Tensor, v_s: Tensor, v_t: Tensor) -> Tensor:
    """Return log q(x_s | x_0, x_t) with respect to the uniform probability, 0 <= v_s <= v_t."""
    joint = log_density(x_s - x_0, v_s) + log_density(x_t - x_s, v_t - v_s)
    return joint - log_density(x_t - x_0, v_t)


def sample_bridge(
    x_0: Tensor, x_t: Tensor, v_s: Tensor, v_t: Tensor, generator: Randomness = None
) -> Tensor:
    r"""Draw x_s given both ends, exactly: a winding number, then a normal bridge, then wrap.

    .. math:: P(k) \propto e^{-(x_t - x_0 + 2\pi k)^2 / 2 v_t}, \qquad
       x_s = x_0 + \tfrac{v_s}{v_t} (x_t - x_0 + 2\pi k) + \sqrt{v_s (v_t - v_s) / v_t}\, z .

    It is written from the end that is nearer in time, which v_s = 0 and v_s = v_t return as it is.
    A variance above 80 acts as 80: by then the kernel is uniform to 1e-17.

    Args:
        x_0: ``(B, *sites)``.  x_t: ``(B, *sites)``.  v_s, v_t: broadcast with them, v_s <= v_t.
    """
    v_u = v_t - v_s
    near, far = torch.where(v_s <= v_u, x_0, x_t), torch.where(v_s <= v_u, x_t, x_0)
    shorter = torch.minimum(v_s, v_u).clamp(0, _UNIFORM)
    longer = torch.maximum(v_s, v_u).clamp(floor(v_t.dtype), _UNIFORM)
    whole = shorter + longer
    turns = 2 * math.pi * torch.arange(-_TURNS, _TURNS + 1, dtype=far.dtype, device=far.device)
    paths = wrap(far - near)[..., None] + turns
    weights = (-paths.square() / (2 * whole[..., None])).softmax(-1)
    path = paths.gather(-1, noise.categorical(weights, generator)[..., None]).squeeze(-1)
    z = noise.normal(far.shape, far, generator)
    moved = wrap(near + shorter / whole * path + (shorter / whole * longer).sqrt() * z)
    return torch.where(shorter > 0, moved, near)


def cosine_sum(coefficients: list[Tensor], x: Tensor) -> Tensor:
    """Return sum_m c_m cos(m x), m from 1; the coefficients broadcast with x."""
    cosine = x.cos()
    value, before = clenshaw(coefficients, cosine)
    return cosine * value - before


def sine_sum(coefficients: list[Tensor], x: Tensor) -> Tensor:
    """Return sum_m c_m sin(m x), m from 1, with relative accuracy at 0."""
    return x.sin() * clenshaw(coefficients, x.cos())[0]


def antipodal_gap(distance: Tensor) -> Tensor:
    """Return pi - distance, at least 0, accurate although pi is no floating-point number."""
    return ((math.pi - distance) + _PI_REST[distance.dtype]).clamp(min=0)


def still_at_cut(distance: Tensor) -> Tensor:
    """Return the distance, a constant where it has reached pi: the densities are flat there."""
    return torch.where(antipodal_gap(distance) > 0, distance, distance.detach())


def clenshaw(coefficients: list[Tensor], cosine: Tensor) -> tuple[Tensor, Tensor]:
    """Run Clenshaw's recurrence b_m = c_m + 2 cos(x) b_{m+1} - b_{m+2}; return b_1 and b_2."""
    twice = 2 * cosine
    value, before = coefficients[-1] + torch.zeros_like(twice), torch.zeros_like(twice)
    for coefficient in reversed(coefficients[:-1]):
        value, before = torch.addcmul(coefficient - before, twice, value), value
    return value, before


def _distance(delta: Tensor) -> tuple[Tensor, Tensor]:
    """Return |delta| on the circle and the sign, with derivatives that fit at 0 and at the seam."""
    delta = wrap(delta)
    sign = torch.where(delta < 0, -1, 1).to(delta.dtype)
    return still_at_cut(sign * delta), sign


def _harmonics(v: Tensor) -> list[Tensor]:
    """Return the weights of cos(n delta) in f, n from 1: 2 q^(n^2) with q = exp(-v/2)."""
    factor, square = (-v / 2).exp(), (-v).exp()
    weights = [2 * factor]
    for _ in range(1, _TERMS):
        factor = factor * square
        weights.append(weights[-1] * factor)
    return weights


def _image_decays(distance: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log weights of the images -1 and 1 relative to the image 0."""
    turn = 2 * math.pi / v
    return -turn * antipodal_gap(distance), -turn * (math.pi + distance)


def _score_images(distance: Tensor, v: Tensor) -> Tensor:
    """Return the score by the images with relative accuracy at both ends, v <= 1."""
    log_nearer, log_farther = _image_decays(distance, v)
    nearer, farther = log_nearer.exp(), log_farther.exp()
    total = 1 + nearer + farther
    near = 2 * math.pi * nearer * -(log_farther - log_nearer).expm1() / total - distance
    gap = antipodal_gap(distance)
    far = math.pi * log_nearer.expm1() + gap * (1 + nearer) - (2 * math.pi + distance) * farther
    return torch.where(distance < 1, near, far / total) / v
