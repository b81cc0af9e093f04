r"""Action matching measures the distance to the true velocity, up to a constant.

.. math:: J(s) - J(s^*) = \tfrac12 \int E |\nabla s_t - \nabla s^*_t|^2 dt
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv

SPACE = rv.Euclidean(2)
MEAN = torch.tensor([1.0, -0.5], dtype=torch.float64)
VARIANCE = torch.tensor([0.25, 0.64], dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(n: int) -> Tensor:
    return MEAN + VARIANCE.sqrt() * torch.randn((n, 2), generator=seeded(0), dtype=torch.float64)


def exact(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    """Of normal data on straight lines: u = -m + (t - (1 - t) v) / w (x - (1 - t) m)."""
    t = t[:, None]
    slope = (t - (1 - t) * VARIANCE) / ((1 - t) ** 2 * VARIANCE + t**2)
    return (-MEAN * x + slope / 2 * (x - (1 - t) * MEAN) ** 2).sum(1)


def wrong(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    """Off by a wave in space and time."""
    return exact(x, t) + torch.sin(x[:, 0] + 2 * t) + t * x[:, 1] ** 2 / 3 + 5 * t


@pytest.mark.parametrize(
    "path",
    [
        rv.Gaussian(SPACE, rv.Rectified()),
        rv.Interpolant(SPACE, rv.Unpaired(rv.NormalPrior(SPACE, 1.0))),
        rv.Interpolant(SPACE, rv.OptimalTransport(rv.NormalPrior(SPACE, 1.0), entropy=1e4)),
    ],
    ids=["process", "independent ends", "entropic plan, almost independent"],
)
def test_the_loss_is_the_distance_to_the_velocity(path: Any):
    """Paired draws, 4,000 items; failure rate 1e-4."""
    x_0 = data(4_000)
    losses = [
        rv.ActionMatching()(rv.Action(s, path), x_0, generator=seeded(1)).detach()
        for s in (wrong, exact)
    ]
    t = rv.LowDiscrepancy().sample(4_000, x_0, seeded(2))
    x_t = (1 - t[:, None]) * x_0 + t[:, None] * torch.randn(
        (4_000, 2), generator=seeded(3), dtype=torch.float64
    )
    u, v = (rv.Action(s, path)(x_t, t).velocity.detach() for s in (wrong, exact))
    difference, distance = losses[0] - losses[1], ((u - v) ** 2).sum(1) / 2
    stderr = ((difference.var() + distance.var()) / 4_000) ** 0.5
    gap = difference.mean() - distance.mean()
    assert abs(float(gap)) < 3.9 * float(stderr)
    assert float(distance.mean()) > 8 * float(stderr)


def test_an_exact_action_is_the_velocity_and_samples_the_data():
    path = rv.Gaussian(SPACE, rv.Rectified())
    oracle = rv.GaussianData(path, MEAN, VARIANCE.diag())
    x, t = data(5), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    action = rv.Action(exact, path)
    torch.testing.assert_close(action(x, t).velocity.detach(), oracle(x, t).velocity)
    x_1 = torch.randn((50, 2), generator=seeded(4), dtype=torch.float64)
    x_0 = rv.Heun().sample(action, 50, 64, x_1=x_1)
    torch.testing.assert_close(x_0, MEAN + VARIANCE.sqrt() * x_1, rtol=0, atol=2e-2)


class Single(torch.nn.Module):
    """The exact action of float32 weights, which takes a clock of no other dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(1, 1))

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        assert (t[:, None] @ self.one).dtype == torch.float32
        return exact(x, t).float()


def test_a_network_of_single_precision_sees_its_own_clock_in_float64_solvers():
    path, x = rv.Gaussian(SPACE, rv.Rectified()), data(20)
    found = rv.flow_log_prob(rv.Action(Single(), path), x.float(), prior=_end).value
    exact_law = torch.distributions.Normal(MEAN, VARIANCE.sqrt())
    torch.testing.assert_close(found, exact_law.log_prob(x).sum(1), rtol=0, atol=1e-3)


def _end(x: Tensor) -> Tensor:
    return torch.distributions.Normal(0, 1).log_prob(x).sum(1)


def test_what_has_no_action_is_refused():
    path = rv.Gaussian(SPACE)
    with pytest.raises(rv.CapabilityError, match="Action"):
        rv.ActionMatching()(rv.GaussianData(path, MEAN, VARIANCE.diag()), data(2))
    with pytest.raises(rv.CapabilityError, match="SharedClock"):
        rv.ActionMatching()(rv.Action(exact, path, rv.SiteClocks()), data(2), generator=seeded(0))
    with pytest.raises(rv.CapabilityError, match="real space"):
        rv.Action(lambda x, t, c: t, rv.Mask(rv.Categorical(3)))(
            torch.zeros(2, dtype=torch.int64), torch.full((2,), 0.5)
        )
