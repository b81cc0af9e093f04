r"""The log-density of a model's numbers by its flow, in the caller's units.

.. math:: \log p(x) = \log p(z(x)) + \sum_j \log \frac{dz_j}{dx_j} .
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

import reversal as rv
from reversal.answers import scoring
from tests.test_scoring import LAW, SOURCE, frame


def exact_given_kind(rows: pd.DataFrame) -> torch.Tensor:
    """log p(pay, temp | kind) of the oracle, rooms summed out."""
    encoded = SOURCE.encode(rows)
    z = encoded.state["numeric"].double()[:, :2]
    means = torch.stack([law.mean for law in LAW.within])[:, :2]
    codes = encoded.state["category"][:, 0]
    law = torch.distributions.MultivariateNormal(means[codes], LAW.within[0].covariance[:2, :2])
    return law.log_prob(z) + SOURCE.log_jacobian(encoded)


def test_the_density_given_the_categories_is_the_exact_one():
    """Row by row, to the flow's error and the signal that is left at t = 1; gaps are left out."""
    rows = frame(30).assign(rooms=np.nan)
    found = scoring.log_prob(LAW, SOURCE, rows, rv.Flow(given_categories=True), 0)
    assert found.kind.startswith("log-density by the flow given the categories")
    assert (found.stderr == 0).all() and (found.bias < 5e-3).all()
    torch.testing.assert_close(found.value, exact_given_kind(rows), rtol=0, atol=5e-3)


def test_a_rounded_number_is_a_bound_and_says_so():
    """Eight dithers, whose mean lies below the probability of the cell."""
    rows = frame(4).assign(pay=np.nan, temp=np.nan)
    found = scoring.log_prob(LAW, SOURCE, rows, rv.Flow(given_categories=True), 0)
    assert found.kind.startswith("lower bound, by dithering, by the flow given the categories")
    assert (found.stderr > 0).all()


def numbers(scale: float = 1.0) -> pd.DataFrame:
    x = np.random.default_rng(3).multivariate_normal([1.0, -2.0], [[1.0, 0.6], [0.6, 0.8]], 400)
    return pd.DataFrame({"a": x[:, 0] * scale, "b": x[:, 1]})


@pytest.fixture(scope="module")
def fitted() -> dict[float, rv.Model]:
    """The same training on a table and on one whose first column has another unit."""
    return {
        scale: rv.Model(steps=150, hidden_features=32, num_blocks=1, show_progress=False).fit(
            numbers(scale)
        )
        for scale in (1.0, 1024.0)
    }


def test_another_unit_of_a_column_shifts_the_density_by_its_logarithm(fitted):
    """Exactly: the states and so the training are the same bit for bit."""
    one, other = (
        fitted[scale].log_prob(numbers(scale).head(20), method=rv.Flow()) for scale in fitted
    )
    torch.testing.assert_close(other.value, one.value - math.log(1024), rtol=0, atol=1e-9)
    assert one.kind.startswith("log-density by the flow") and "given" not in one.kind
    assert one.measure == {"a": "Lebesgue", "b": "Lebesgue"}


def test_the_density_is_that_of_the_law_and_the_bound_lies_below_it(fitted):
    """On 60 rows of the law: the means agree to the error of so small a training."""
    rows = numbers().head(60)
    flow, bound = fitted[1.0].log_prob(rows, method=rv.Flow()), fitted[1.0].log_prob(rows)
    law = torch.distributions.MultivariateNormal(
        torch.tensor([1.0, -2.0]).double(), torch.tensor([[1.0, 0.6], [0.6, 0.8]]).double()
    )
    exact = law.log_prob(torch.from_numpy(rows.to_numpy(copy=True)))
    assert abs(float((flow.value - exact).mean())) < 0.15
    error = 4 * float(bound.stderr.norm()) / 60
    assert -0.05 - error < float((flow.value - bound.value).mean()) < 0.3 + error
    late = flow.bias > 2e-3
    says = f", not converged in {int(late.sum())} of 60 rows" if late.any() else ""
    assert flow.kind == f"log-density by the flow{says}"


def test_the_density_of_a_fit_integrates_to_one(fitted):
    """Over a grid of the plane, within what its cells and the flow's error leave."""
    a, b = np.meshgrid(np.linspace(-3, 5, 33), np.linspace(-6, 2, 33), indexing="ij")
    rows = pd.DataFrame({"a": a.ravel(), "b": b.ravel()})
    mass = fitted[1.0].log_prob(rows, method=rv.Flow()).value.exp() * (8 / 32) ** 2
    assert abs(float(mass.sum()) - 1) < 0.03


def test_what_has_no_flow_is_refused_with_the_cure():
    with pytest.raises(rv.CapabilityError, match="given_categories=True"):
        scoring.log_prob(LAW, SOURCE, frame(3), rv.Flow(), 0)
    words = rv.Model(steps=2, hidden_features=8, num_blocks=1, show_progress=False)
    words.fit(pd.DataFrame({"a": ["x", "y"] * 10, "b": ["u", "u", "v", "v"] * 5}))
    with pytest.raises(rv.CapabilityError, match="Leave `method` out"):
        words.log_prob(pd.DataFrame({"a": ["x"], "b": ["u"]}), method=rv.Flow())
