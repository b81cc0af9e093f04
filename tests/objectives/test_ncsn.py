r"""Score networks as they were published: sliced score matching, and many levels at once.

.. math:: J = E_z [z^T (\nabla s) z + \tfrac12 (z^T s)^2], \qquad
   \ell(\sigma) = \tfrac12 E\Big|s(\tilde x, \sigma) + \frac{\tilde x - x}{\sigma^2}\Big|^2, \quad
   L = \frac1L \sum_i \sigma_i^2\, \ell(\sigma_i) .

Source: Song et al. (2019), sliced score matching; Song and Ermon (2019), eq. (5) and (6).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import reversal as rv

PLANE = rv.Euclidean(2)
SIGMAS = 10.0 ** torch.linspace(1, -1, 9, dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def score(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    """No gradient, and wrong."""
    return torch.sin(x.flip(1)) - x * (1 + t[:, None])


def jacobian(x: Tensor, t: Tensor) -> Tensor:
    """Its derivative by x, ``(B, 2, 2)``."""
    turned = torch.diag_embed(torch.cos(x.flip(1))).flip(2)
    return turned - (1 + t)[:, None, None] * torch.eye(2, dtype=x.dtype)


def network(process: rv.Gaussian, clocks: Any = None) -> rv.NetworkDenoiser:
    return rv.NetworkDenoiser(score, process, rv.Score(), clocks)


def signs(shape: Any, g: torch.Generator) -> Tensor:
    return 1 - 2 * (torch.rand(shape, dtype=torch.float64, generator=g) < 0.5).double()


def test_sliced_score_matching_is_the_published_loss_of_reduced_variance():
    """Times g^2, on the same draws of x_t and of three projections, to 1e-12."""
    process = rv.Gaussian(PLANE, rv.VarianceExploding())
    x_0 = torch.randn(50, 2, dtype=torch.float64, generator=seeded())
    got = rv.Implicit.sliced(3)(network(process), x_0, generator=seeded(1))
    g = seeded(1)
    t = rv.LowDiscrepancy().sample(50, x_0, g)
    x_t = process.kernel(x_0, t).sample(g)
    z = torch.stack([signs((50, 2), g) for _ in range(3)])
    s, J = score(x_t, t), jacobian(x_t, t)
    curved = torch.einsum("pbi,bij,pbj->pb", z, J, z).mean(0)
    published = curved + (s**2).sum(1) / 2
    rate = process.schedule.signal(t).diffusion
    torch.testing.assert_close(got, rate * published, rtol=1e-12, atol=1e-12)


def test_the_plain_form_has_the_same_mean_and_more_variance():
    """All four pairs of signs are one mean exactly; over them the plain form spreads more."""
    x = torch.randn(7, 2, dtype=torch.float64, generator=seeded())
    t = torch.full((7,), 0.3, dtype=torch.float64)
    z = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 2)
    s, J = score(x, t), jacobian(x, t)
    curved = torch.einsum("pi,bij,pj->pb", z, J, z)
    plain, reduced = curved + (z @ s.T) ** 2 / 2, curved + (s**2).sum(1) / 2
    torch.testing.assert_close(plain.mean(0), reduced.mean(0), rtol=1e-12, atol=1e-12)
    process = rv.Gaussian(PLANE, rv.VarianceExploding())
    exact = rv.objectives.implicit_rate(process, t, lambda y: score(y, t), x)
    rate = process.schedule.signal(t).diffusion
    torch.testing.assert_close(rate * reduced.mean(0), exact, rtol=1e-12, atol=1e-12)
    assert float(plain.var(0).mean()) > float(reduced.var(0).mean())


def recipe() -> tuple[rv.Gaussian, rv.Grid]:
    """The process and the levels, as docs/choose.md has them."""
    process = rv.Gaussian(PLANE, rv.VarianceExploding(0.01, 10.0))
    return process, rv.Grid.log_snr(process, 9, least=0.1, most=10.0)


def test_the_levels_are_geometric():
    process, levels = recipe()
    sigma = process.schedule.signal(levels.times[:-1]).sigma
    torch.testing.assert_close(sigma, SIGMAS, rtol=1e-6, atol=0)


def test_regression_of_the_score_is_twice_the_loss_of_many_levels():
    """Item by item, with lambda(sigma) = sigma^2, to 1e-9; every level is drawn."""
    process, levels = recipe()
    denoiser = network(process, rv.SharedClock(rv.GridTimes(levels)))
    x_0 = torch.randn(300, 2, dtype=torch.float64, generator=seeded())
    got = rv.Regression()(denoiser, x_0, generator=seeded(1))
    g = seeded(1)
    t = denoiser.clocks.times.sample(300, x_0, g)
    noisy = process.kernel(x_0, t).sample(g)
    sigma = process.schedule.signal(t).sigma[:, None]
    published = ((score(noisy, t) + (noisy - x_0) / sigma**2) ** 2).sum(1) / 2
    torch.testing.assert_close(got, 2 * sigma[:, 0] ** 2 * published, rtol=1e-9, atol=1e-9)
    assert len(t.unique()) == 9


def test_annealed_langevin_with_the_exact_score_draws_the_data():
    """Two modes, 2,000 draws: weights within 4.5 standard errors and 0.02, widths within 5 %."""
    process = rv.Gaussian(rv.Euclidean(1), rv.VarianceExploding(0.01, 10.0))
    levels = rv.Grid.log_snr(process, 20, least=0.05, most=10.0)
    means, widths = torch.tensor([[-2.0], [1.5]]).double(), torch.tensor([0.3, 0.2]).double()
    weights = torch.tensor([0.3, 0.7]).double()
    data = rv.GaussianMixture(process, weights, means, widths**2)
    sampler, n = rv.Langevin(corrections=60, size=0.3), 2000
    x = sampler.sample(data, n, grid=levels, generator=seeded(4))[:, 0]
    left = x < 0
    assert abs(float(left.double().mean()) - 0.3) < 4.5 * (0.21 / n) ** 0.5 + 0.02
    for mode, mean, width in zip((x[left], x[~left]), means[:, 0], widths, strict=True):
        assert abs(float(mode.mean() - mean)) < 4.5 * float(width) / len(mode) ** 0.5 + 0.01
        assert abs(float(mode.std() / width) - 1) < 4.5 / (2 * len(mode)) ** 0.5 + 0.05
