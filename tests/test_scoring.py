r"""The likelihood of rows in the caller's units, against an exact law.

With Gaussian data within each cell of a table as the law of the encoded rows, a row has the density

.. math:: p(x, c) = \pi_c\, N(z(x); \mu_c, C)\, \prod_j \frac{dz_j}{dx_j} ,

in closed form, and the bound is held against it, against 1 when it is integrated over all rows, and
against finite differences of the encoding.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import reversal as rv
from reversal.answers import drawing, scoring
from reversal.answers.methods import Bound
from reversal.data.rows import TableSource
from reversal.data.schema import Schema
from reversal.data.table import TableCodec
from reversal.likelihood import bound as likelihood
from tests.general_location import GeneralLocation

RATE = 1e-4


def frame(n=400):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "pay": np.exp(rng.normal(size=n)),
            "temp": 20 + 3 * rng.normal(size=n),
            "rooms": rng.poisson(300, n),
            "kind": rng.choice(["a", "b"], n),
        }
    )


WHOLE = Schema.parse("version: 1\ncolumns: {rooms: integer}")
SOURCE = TableSource(TableCodec.infer(frame(), WHOLE))
LAW = GeneralLocation(
    torch.tensor([0.4, 0.6], dtype=torch.float64),
    torch.tensor([[-0.5, 0.2, 0.0], [0.4, 0.0, 0.3]], dtype=torch.float64),
    torch.tensor([[0.8, 0.3, 0.1], [0.3, 0.9, 0.0], [0.1, 0.0, 0.7]], dtype=torch.float64),
    rv.Cosine(1e-4),
)


def exact(rows, present=(True, True, True)):
    """log p of encoded rows in the caller's units, the numbers that are not present summed out."""
    encoded = SOURCE.encode(rows)
    keep = torch.tensor(present)
    z = encoded.state["numeric"].double()[:, keep]
    means = torch.stack([law.mean for law in LAW.within])[:, keep]
    covariance = LAW.within[0].covariance[keep][:, keep]
    codes = encoded.state["category"][:, 0]
    law = torch.distributions.MultivariateNormal(means[codes], covariance)
    return LAW.log_probs[codes] + law.log_prob(z) + SOURCE.log_jacobian(encoded)


def test_the_jacobian_is_the_finite_difference_of_the_encoding():
    """Two rows a little apart lie dz apart in the latent scale, within one piece of the map."""
    column = SOURCE.codec.column("pay")
    knots = np.array(column.knots)
    middle, step = (knots[1:] + knots[:-1]) / 2, 0.2 * np.diff(knots)
    rows = pd.DataFrame(
        {"pay": np.concatenate([middle - step, middle + step]), "temp": 20.0, "rooms": 300,
         "kind": "a"}
    )  # fmt: skip
    n = len(middle)
    quantiles = SOURCE.codec.quantiles
    numbers = torch.from_numpy(rows[["pay", "temp", "rooms"]].to_numpy(float))
    normals = quantiles.forward(numbers)
    z = normals[:, 0]
    slope = (z[n:] - z[:n]).log() - torch.from_numpy(np.log(2 * step))
    found = quantiles.log_jacobian(normals)[:n, 0]
    torch.testing.assert_close(found, slope, rtol=0, atol=1e-9)


def test_a_bound_is_close_below_the_exact_density_of_rows():
    rows = frame(30).drop(columns="rooms").assign(rooms=np.nan)
    found = scoring.log_prob(LAW, SOURCE, rows, Bound(512), 0)
    truth = exact(rows, (True, True, False))
    z = float(stats.norm.isf(RATE / 30)) * 1.6  # 7 degrees of freedom: t's quantile over z's
    assert (found.value < truth + z * found.stderr).all()
    total = float((found.value - truth).mean())
    error = float(found.stderr.norm()) / 30
    assert -0.05 - 4 * error < total < 4 * error


def test_a_density_integrates_to_one():
    """Over pay and both kinds, the others marginalized out: at most 1, and nearly."""
    normals = np.array(SOURCE.codec.column("pay").normals)
    tails = np.linspace(normals[-1], 6, 12)[1:], np.linspace(-6, normals[0], 12)[:-1]
    knots = np.concatenate([tails[1], normals, tails[0]])
    every = np.arange(0, len(knots) - 1 + 1e-9, 1 / 8)
    edges = torch.from_numpy(np.interp(every, np.arange(len(knots)), knots))
    pay = SOURCE.codec.quantiles.inverse(edges[:, None].expand(-1, 3))[:, 0].numpy()
    weight, total, error = np.diff(pay), 0.0, 0.0
    for kind in "ab":
        middle = (pay[1:] + pay[:-1]) / 2
        rows = pd.DataFrame({"pay": middle, "temp": np.nan, "rooms": np.nan, "kind": kind})
        found = scoring.log_prob(LAW, SOURCE, rows, Bound(64), 1)
        mass = found.value.exp().numpy() * weight
        total += mass.sum()
        error += ((mass * found.stderr.numpy()) ** 2).sum()
    assert error**0.5 < 0.02
    assert 0.96 - 4 * error**0.5 < total < 1.002 + 4 * error**0.5


def test_probabilities_of_rounded_numbers_sum_to_at_most_one():
    rooms = np.arange(frame()["rooms"].min(), frame()["rooms"].max() + 1)
    rows = pd.DataFrame({"pay": np.nan, "temp": np.nan, "rooms": rooms, "kind": "a"})
    found = scoring.log_prob(LAW, SOURCE, rows, Bound(512), 2)
    places = rooms - rooms.min()  # positions on the lattice
    edges = torch.tensor(np.stack([places - 0.5, places + 0.5])).double()
    ends = SOURCE.codec.quantiles.forward(edges.flatten()[:, None].expand(-1, 3))[:, 2]
    law = stats.norm(0.0, 0.7**0.5)
    low, high = ends.view(2, -1).numpy()
    truth = np.log(0.4 * (law.cdf(high) - law.cdf(low)))
    value, stderr = found.value.numpy(), found.stderr.numpy()
    assert (value < truth + 5.5 * stderr).all()
    assert found.measure == {
        "pay": "Lebesgue", "temp": "Lebesgue", "rooms": "counting", "kind": "counting"
    }  # fmt: skip
    common = truth > np.log(0.01)
    assert (value[common] > truth[common] - 0.15 - 5.5 * stderr[common]).all()


def test_scores_do_not_depend_on_the_size_of_chunks(monkeypatch):
    """Not bit for bit, for the stream is another: within their errors."""
    rows = frame(40)
    whole = scoring.log_prob(LAW, SOURCE, rows, Bound(64), 0)
    monkeypatch.setattr(drawing, "CHUNK", 7)
    parts = scoring.log_prob(LAW, SOURCE, rows, Bound(64), 0)
    spread = (whole.stderr**2 + parts.stderr**2).sum().sqrt() / 40
    assert (whole.value - parts.value).mean().abs() < 4 * spread
    assert len(parts.value) == 40


# How the noise of the bound is held down


@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.02])
def test_the_times_of_a_bound_have_the_density_that_their_weights_invert(eps):
    """Means of weighted powers of t are their integrals over [eps, 1]."""
    u = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    t, weight = likelihood._times(u, eps)
    assert float(t.min()) >= eps
    assert float(t.max()) <= 1
    for power in (0.0, 0.5, 2.0):
        truth = (1 - eps ** (power + 1)) / (power + 1)
        assert float((weight * t**power).mean()) == pytest.approx(truth, rel=1e-4)


SCHEDULES = [rv.Cosine(), rv.VariancePreserving(), rv.Rectified(), rv.VarianceExploding(0.1, 10)]


def noised(schedule, t, x):
    """Eight nodes of Gauss-Hermite quadrature over the noise, exact for squares."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    process = rv.Gaussian(rv.Euclidean(1), schedule)
    x_0 = torch.full((8, 1), x, dtype=torch.float64)
    clock = torch.full((8,), t, dtype=torch.float64)
    signal = schedule.signal(clock[:1])
    x_t = signal.alpha * x_0 + signal.sigma * torch.from_numpy(nodes)[:, None]
    return process, x_0, x_t, clock, torch.from_numpy(weights / weights.sum())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: type(each).__name__)
def test_the_integral_of_the_reference_rate_is_that_of_its_expectation(schedule):
    """Gauss-Legendre quadrature over log t, Gauss-Hermite over the noise."""
    eps, x = 1e-3, 1.7
    nodes, weights = np.polynomial.legendre.leggauss(120)
    total = 0.0
    for node, weight in zip(nodes, weights, strict=True):
        t = eps ** ((1 - node) / 2)
        process, x_0, x_t, clock, noise = noised(schedule, t, x)
        target = process.kernel(x_0, clock).score(x_t)
        forward = process.forward(x_t, clock)
        rate = likelihood._reference_rate(process, x_t, clock, forward, target)[:, 0]
        total += float(noise @ rate) * t * weight * -np.log(eps) / 2
    last = torch.full((8,), eps, dtype=torch.float64)
    found = likelihood._reference_integral(process, x_0, last)
    assert float(found[0, 0]) == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: type(each).__name__)
def test_what_is_taken_from_the_last_step_has_expectation_zero(schedule):
    for x in (-1.3, 0.0, 2.1):
        process, x_0, x_t, clock, noise = noised(schedule, 1e-3, x)
        square = likelihood._excess_square(process, x_0, x_t, clock)[:, 0]
        assert abs(float(noise @ square)) < 1e-9 * float(square.abs().max())


def test_standard_normal_rows_have_a_bound_without_noise():
    """Nothing is left of the rate's and the last step's variance: the strata and x_1 remain."""
    denoiser = rv.GaussianData(
        rv.Gaussian(rv.Euclidean(3), rv.Cosine()), torch.zeros(3).double(), torch.eye(3).double()
    )
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws = torch.stack(
        [
            rv.elbo(denoiser, x, num_samples=32, generator=torch.Generator().manual_seed(k)).value
            for k in range(12)
        ]
    )
    assert draws.std(0).mean() < 0.02
    truth = -0.5 * (x**2).sum(1) - 1.5 * np.log(2 * np.pi)
    assert (draws.mean(0) - truth).abs().max() < 0.02


def test_the_control_variate_halves_the_noise_of_correlated_rows(monkeypatch):
    """A dependence that the control variate knows nothing of: 0.9 between two numbers."""
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    process = rv.Gaussian(rv.Euclidean(2), rv.Cosine())
    denoiser = rv.GaussianData(process, torch.zeros(2).double(), covariance)
    noise = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = noise @ torch.linalg.cholesky(covariance).mT

    def spread():
        generator = torch.Generator().manual_seed(1)
        runs = [rv.elbo(denoiser, x, num_samples=16, generator=generator) for _ in range(16)]
        return float(torch.stack([run.value for run in runs]).var(0).mean()) ** 0.5

    after = spread()
    monkeypatch.setattr(likelihood, "_reference_rate", lambda *_: torch.zeros(()))
    monkeypatch.setattr(likelihood, "_reference_integral", lambda *_: torch.zeros(()))
    monkeypatch.setattr(likelihood, "_excess_square", lambda *_: torch.zeros(()))
    assert after < 0.5 * spread()
