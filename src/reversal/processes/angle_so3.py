r"""The angle of Brownian motion on SO(3): density, score and inverse distribution function.

The metric is the angle squared, the generator half the Laplacian, the density f(omega, v) is with
respect to Haar probability, v is the operational time. With :math:`\theta_k = \omega + 2 \pi k`,

.. math::
   f(\omega, v) = \sum_{l \ge 0} (2l+1) e^{-l(l+1)v/2}
                  \frac{\sin((l + \frac12) \omega)}{\sin(\omega / 2)}
                = \frac{\sqrt{2\pi}\, e^{v/8}}{v^{3/2} \sin(\omega/2)}
                  \sum_{k \in Z} (-1)^k \theta_k e^{-\theta_k^2 / 2v},

and the angle has the density f(omega, v) (1 - cos omega) / pi on [0, pi]. The second sum, in logs
and with the images k and -1 - k paired so that nothing cancels at the angle pi, serves v < 1: no
other images than -2, -1, 0 and 1 reach float64 there. The first, 15 terms, serves v >= 1; and also
v >= 0.4 at angles below 1/2, where the images are beyond rounding for smaller v and cancel among
themselves for larger. Source: Nikolayev and Savyolov (1997); the image sum is Poisson's summation.

Times below ``floor(dtype)``, 1e-12 in float64 and 1e-10 in float32, are read as that. An angle is
in [0, pi]; v broadcasts with it.
"""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import final

import torch
from torch import Tensor

from reversal.processes.wrapped_normal import (
    antipodal_gap,
    cosine_sum,
    floor,
    sine_sum,
    still_at_cut,
)

_TERMS = 15
_NEAR = 0.5
_BROAD, _BROAD_NEAR = 1.0, 0.4
# 1 / x - cot(x / 2) / 2 = sum_n |B_2n| x^(2n - 1) / (2n)!, n from 1
_COTANGENT = [1 / 12, 1 / 720, 1 / 30240, 1 / 1209600, 1 / 47900160]
_COTANGENT += [691 / 1307674368000, 1 / 74724249600]
_HALVED = [c / (2 * n) for n, c in enumerate(_COTANGENT, 1)]
_LOG_SCALE = math.log(2 * math.sqrt(2 * math.pi))
_CUBIC = [(-1) ** n / math.factorial(2 * n + 3) for n in range(8)]
_NEWTON_ROUNDS = 6


def log_density(omega: Tensor, v: Tensor) -> Tensor:
    """Return log f(omega, v) with respect to Haar probability, finite for every v and angle."""
    v = v.clamp(min=floor(v.dtype))
    omega = still_at_cut(omega)
    constant, *weights = harmonics(v.clamp(min=_BROAD_NEAR))
    series = (constant + cosine_sum(weights, omega)).log1p()
    return torch.where(_is_broad(omega, v), series, _log_images(omega, v.clamp(max=_BROAD)))


def score_magnitude(omega: Tensor, v: Tensor) -> Tensor:
    r"""Return the derivative of log f in omega: about -omega/v, and 0 at the angles 0 and pi.

    .. math:: \partial_\omega \log f = \frac{\sum (-1)^k (1 - \theta_k^2/v) e^{-\theta_k^2/2v}}
              {\sum (-1)^k \theta_k e^{-\theta_k^2/2v}} - \tfrac12 \cot\tfrac\omega2 .
    """
    v = v.clamp(min=floor(v.dtype))
    constant, *weights = harmonics(v.clamp(min=_BROAD_NEAR))
    slopes = [m * weight for m, weight in enumerate(weights, 1)]
    broad = -sine_sum(slopes, omega) / (1 + constant + cosine_sum(weights, omega))
    image = v.clamp(max=_BROAD)
    few = omega.clamp(max=_NEAR)
    near = -few / image + few * _even(_COTANGENT, few)
    narrow = torch.where(omega < _NEAR, near, _score_images(omega.clamp(min=_NEAR), image))
    return torch.where(_is_broad(omega, v), broad, narrow)


def sample_angle(v: Tensor, uniforms: Tensor) -> Tensor:
    r"""Invert the distribution function of the angle: v and uniforms in [0, 1) broadcast.

    .. math::
       F(\omega) = 1 - Q_0(\omega) + Q_0(2\pi - \omega) - Q_0(2\pi + \omega) + \ldots, \qquad
       Q_0(\theta) = \sum_{j \ge 0} e^{v/8} \frac{(-v/8)^j}{j!} Q(j + \tfrac32, \theta^2 / 2v),

    a chi-squared law of 3 degrees with the negative noncentrality -v/4, folded into [0, pi]; for
    v >= 1 a Fourier sum. Newton's method solves for the lower tail below the median and for the
    upper one above it, so both keep their relative accuracy. The angle is 0 where v is.

    Cost: 6 rounds of about 200 elementwise operations.
    """
    variance, lower = torch.broadcast_tensors(v.clamp(min=floor(v.dtype)), uniforms)
    lower = lower.clamp(min=torch.finfo(lower.dtype).eps / 8)
    law = _AngleLaw(variance)
    omega = law.guess(lower)
    for _ in range(_NEWTON_ROUNDS):
        omega = law.newton(omega, lower)
    return omega * (v / variance).sqrt()


def _is_broad(omega: Tensor, v: Tensor) -> Tensor:
    return (v >= _BROAD) | ((v >= _BROAD_NEAR) & (omega < _NEAR))


def _characters(v: Tensor) -> list[Tensor]:
    """Return (2 l + 1) exp(-l (l + 1) v / 2), l from 1."""
    decay = factor = power = (-v).exp()
    terms = [3 * power]
    for degree in range(2, _TERMS):
        factor = factor * decay
        power = power * factor
        terms.append((2 * degree + 1) * power)
    return terms


def harmonics(v: Tensor) -> list[Tensor]:
    """Return the weights of cos(m omega) in f - 1, m from 0: tails of the sum over characters."""
    tails = list(accumulate(reversed(_characters(v))))[::-1]
    return [tails[0], *(2 * tail for tail in tails)]


def _image_decays(omega: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return pi - omega and the weights, relative to the image k = 0, of k = -1, 1 and -2 to 1."""
    gap = antipodal_gap(omega)
    once = -2 * math.pi * gap / v
    return gap, once, (-2 * math.pi * (math.pi + omega) / v).exp(), 3 * once


def _log_images(omega: Tensor, v: Tensor) -> Tensor:
    """Return log f by the images, v <= 1; one image at angles below 1/2."""
    few, far = omega.clamp(max=_NEAR), omega.clamp(min=_NEAR)
    gap, once, third, thrice = _image_decays(far, v)
    others = (math.pi + gap) * once.exp()
    others = others - third * (3 * math.pi - gap + (3 * math.pi + gap) * thrice.exp())
    near = few * few * _even(_HALVED, few)
    ratio = (far / (2 * (far / 2).sin())).log()
    rest = torch.where(omega < _NEAR, near, ratio + (others / far).log1p())
    return _LOG_SCALE - 1.5 * v.log() + v / 8 - omega * omega / (2 * v) + rest


def _score_images(omega: Tensor, v: Tensor) -> Tensor:
    """Return the score by the images at angles from 1/2 on, v <= 1, accurate up to pi."""
    gap, once, third, thrice = _image_decays(omega, v)
    outer, inner = 3 * math.pi + gap, 3 * math.pi - gap
    first, second = once.exp(), thrice.exp()
    total = omega + (math.pi + gap) * first - third * (inner + outer * second)
    slope = -once.expm1() * (1 - omega * omega / v) + first * 4 * math.pi * gap / v
    pair = -thrice.expm1() * (1 - inner * inner / v) + second * 12 * math.pi * gap / v
    return (slope - third * pair) / total - (gap / 2).tan() / 2


def _even(coefficients: list[float], x: Tensor) -> Tensor:
    square = x * x
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * square + coefficient
    return value


@final
class _AngleLaw:
    """The distribution function of the angle, and a Newton step of its inverse."""

    def __init__(self, v: Tensor) -> None:
        self.v, self.image, self.is_narrow = v, v.clamp(max=_BROAD), v < _BROAD
        powers = [(self.image / 8).exp()]
        for j in range(1, 12):
            powers.append(powers[-1] * self.image / (-8 * j))
        ratios = [math.gamma(2.5) / math.gamma(n + 2.5) for n in range(15)]
        heads = list(accumulate([*powers, *[torch.zeros_like(v)] * 3]))
        self.head = [ratio * head for ratio, head in zip(ratios, heads, strict=True)]
        tails = list(accumulate(reversed(powers[1:])))
        self.tail = [ratio * tail for ratio, tail in zip(ratios, reversed(tails), strict=False)]
        characters = _characters(v.clamp(min=_BROAD))
        self.broad = [a - b for a, b in pairwise((torch.ones_like(v), *characters))]

    def guess(self, lower: Tensor) -> Tensor:
        """Invert the leading power of F, or Wilson and Hilferty's form of the chi-squared."""
        density = log_density(torch.zeros_like(self.v), self.v).exp()
        cubic = (6 * math.pi * lower / density) ** (1 / 3)
        normal = -torch.special.ndtri(1 - lower)
        chi = (3 * self.v * (25 / 27 + normal.clamp(min=0) * (2 / 27) ** 0.5) ** 3).sqrt()
        return torch.where(self._is_upper(lower), chi.clamp(max=3.1), cubic)

    def newton(self, omega: Tensor, lower: Tensor) -> Tensor:
        """Solve for log F against log omega, or for log(1 - F) against log(pi - omega)."""
        density = log_density(omega, self.v).exp() * 2 * (omega / 2).sin().square() / math.pi
        head, tail = self._both_tails(omega)
        below = omega * ((lower / head).log() * head / (omega * density)).exp()
        gap, upper = math.pi - omega, 1 - lower
        above = omega - gap * ((upper / tail).log() * tail / (gap * density)).expm1()
        return torch.where(self._is_upper(lower), above, below.clamp(max=math.pi))

    def _is_upper(self, lower: Tensor) -> Tensor:
        return self.is_narrow & (lower >= 0.5)

    def _both_tails(self, omega: Tensor) -> tuple[Tensor, Tensor]:
        """Return F and, for v < 1, 1 - F."""
        y = omega * omega / (2 * self.image)
        images = torch.stack((omega, 2 * math.pi - omega, 2 * math.pi + omega))
        here, once, twice = self._tail(images)
        few = y.clamp(max=0.4)
        series = few**1.5 * (-few).exp() / math.gamma(2.5) * _horner(self.head, few)
        narrow = torch.where(y < 0.4, series, 1 - here) + once - twice
        head = torch.where(self.is_narrow, narrow, self._broad_head(omega))
        return head, (here - once + twice).clamp(min=torch.finfo(y.dtype).tiny)

    def _tail(self, theta: Tensor) -> Tensor:
        """Return Q_0, from Q(a + 1, y) = Q(a, y) + y^a exp(-y) / Gamma(a + 1)."""
        y = theta * theta / (2 * self.image)
        root, decay = y.sqrt(), (-y).exp()
        first = torch.erfc(root) + 2 / math.sqrt(math.pi) * root * decay
        return first + y * root * decay / math.gamma(2.5) * _horner(self.tail, y)

    def _broad_head(self, omega: Tensor) -> Tensor:
        """Return F = sum_m c_m s_m / (m pi), s_m = m omega - sin(m omega) by recurrence, v >= 1."""
        few = omega.clamp(max=1)
        twice, kick = 2 * omega.cos(), 4 * omega * (omega / 2).sin().square()
        sine = torch.where(omega < 1, few**3 * _even(_CUBIC, few), omega - omega.sin())
        before, total = torch.zeros_like(sine), self.broad[0] * sine
        for m, weight in enumerate(self.broad[1:9], 2):
            sine, before = torch.addcmul((m - 1) * kick - before, twice, sine), sine
            total = torch.addcmul(total, weight / m, sine)
        return total / math.pi


def _horner(coefficients: list[Tensor], x: Tensor) -> Tensor:
    value = coefficients[-1] + torch.zeros_like(x)
    for coefficient in reversed(coefficients[:-1]):
        value = torch.addcmul(coefficient, value, x)
    return value
