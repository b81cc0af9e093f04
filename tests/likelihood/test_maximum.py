r"""Continuous normalizing flows by maximum likelihood: gradients, and the optimum in closed form.

For data N(m, S) the expected loss is at least the entropy :math:`\tfrac12 \log\det(2 \pi e S)`, and
a velocity that is affine in x reaches it.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reversal as rv

PLANE = rv.Euclidean(2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Small(nn.Module):
    """A time-dependent velocity, with weights that are not those of a start."""

    def __init__(self, inputs: int, outputs: int, shape: tuple[int, ...], seed: int = 0) -> None:
        super().__init__()
        self.inner = nn.utils.skip_init(nn.Linear, inputs + 1, 5)
        self.outer = nn.utils.skip_init(nn.Linear, 5, outputs)
        self.shape = shape
        for part in self.parameters():
            part.data = torch.randn(part.shape, dtype=torch.float64, generator=seeded(seed)) / 2

    def forward(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        seen = torch.cat([x.flatten(1).sin(), t[:, None]], 1)
        return self.outer(torch.tanh(self.inner(seen))).reshape(len(x), *self.shape)


class Both(nn.Module):
    """A network for two factors, each of which sees the other."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Small(3, 3, (3,))

    def forward(self, x: Any, t: Any, cond: Any) -> Any:
        out = self.core(torch.cat([x["a"], x["b"]], 1), t, cond)
        return {"a": out[:, :2], "b": out[:, 2:]}


def flow(space: Any, network: Any) -> rv.NetworkDenoiser:
    path = rv.Interpolant(space, rv.Unpaired(rv.NormalPrior(space, 1.0)))
    return rv.NetworkDenoiser(network, path, rv.Velocity())


def both() -> rv.NetworkDenoiser:
    line = rv.Euclidean(1)
    process = rv.Independent(
        a=rv.Gaussian(PLANE, rv.Cosine()),
        b=rv.Interpolant(line, rv.Unpaired(rv.NormalPrior(line, 1.0))),
    )
    return rv.NetworkDenoiser(Both(), process, {"a": rv.Velocity(), "b": rv.Velocity()})


CASES = {
    "plane": lambda: flow(PLANE, Small(2, 2, (2,))),
    "image": lambda: flow(rv.Euclidean(1, 2, 2), Small(4, 4, (1, 2, 2))),
    "torus": lambda: rv.NetworkDenoiser(Small(2, 2, (2,)), rv.Brownian(rv.Torus(2)), rv.Velocity()),
    "SO(3)": lambda: rv.NetworkDenoiser(Small(9, 3, (3,)), rv.Brownian(rv.SO3()), rv.Velocity()),
    "product": both,
}


def points(denoiser: rv.NetworkDenoiser) -> Any:
    return denoiser.process.prior.sample(3, seeded(8), torch.empty((), dtype=torch.float64))


@pytest.mark.parametrize("probes", [0, 2])
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_what_was_computed(name, probes):
    """Central differences along three directions of all weights, to 1e-6; also with probes."""
    denoiser = CASES[name]()
    x_0 = points(denoiser)
    objective = rv.MaximumLikelihood(4, probes)

    def value() -> Tensor:
        return objective(denoiser, x_0, generator=seeded(1)).mean()

    value().backward()
    parts = list(denoiser.parameters())
    for seed in range(3):
        g = seeded(10 + seed)
        ways = [torch.randn(p.shape, dtype=torch.float64, generator=g) for p in parts]
        along = sum(float((p.grad * way).sum()) for p, way in zip(parts, ways, strict=True))
        ends, h = [], 1e-5
        for sign in (1, -1):
            with torch.no_grad():
                for p, way in zip(parts, ways, strict=True):
                    p += sign * h * way
                ends.append(float(value()))
                for p, way in zip(parts, ways, strict=True):
                    p -= sign * h * way
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(along, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_minus_the_log_density_of_the_flow(name):
    """The same steps give ``flow_log_prob`` to 1e-12, and its fine solution to its bias."""
    denoiser = CASES[name]()
    x_0 = points(denoiser)
    losses = rv.MaximumLikelihood(6)(denoiser, x_0)
    known = rv.flow_log_prob(denoiser, x_0, solver=rv.RungeKutta(6))
    torch.testing.assert_close(-losses, known.value, rtol=1e-12, atol=1e-12)
    fine = rv.flow_log_prob(denoiser, x_0)
    torch.testing.assert_close(-losses.detach(), fine.value, rtol=0, atol=2e-3)
    with torch.no_grad():
        assert not rv.MaximumLikelihood(6)(denoiser, x_0).requires_grad


class Affine(nn.Module):
    """A x + b, the same at all times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2, dtype=torch.float64)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return self.layer(x)


def test_an_affine_flow_reaches_the_entropy_of_normal_data(global_seed):
    """On points with the moments of N(m, S), for which the mean loss is the expected one."""
    mean = torch.tensor([0.5, -1.0], dtype=torch.float64)
    covariance = torch.tensor([[1.0, 0.5], [0.5, 0.6]], dtype=torch.float64)
    root = torch.linalg.cholesky(covariance)
    nodes = mean + 2**0.5 * torch.cat([root.T, -root.T])
    entropy = 1 + math.log(2 * math.pi) + float(torch.logdet(covariance)) / 2
    denoiser, objective = flow(PLANE, Affine()), rv.MaximumLikelihood(6)
    optimizer = torch.optim.LBFGS(
        denoiser.parameters(), max_iter=40, line_search_fn="strong_wolfe", tolerance_grad=1e-9
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective(denoiser, nodes).mean()
        loss.backward()
        return loss

    first = float(closure().detach())
    optimizer.step(closure)
    last = float(closure().detach())
    assert first > entropy + 0.3
    assert last == pytest.approx(entropy, abs=1e-5)
    drawn = rv.Adaptive(1e-8, 1e-8).sample(denoiser, 20_000, generator=seeded(3))
    error = (torch.cov(drawn.T.double()) - covariance).abs()
    assert float(error.max()) < 4.5 * 2**0.5 * float(covariance.max()) / 20_000**0.5


def test_probes_are_unbiased():
    """4,000 draws within 4.5 standard errors of the exact divergence; false alarms below 1e-4."""
    denoiser, count = CASES["plane"](), 4000
    x = torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    with torch.no_grad():
        exact = rv.MaximumLikelihood(3, 0)(denoiser, x)
        drawn = rv.MaximumLikelihood(3, 1)(denoiser, x.expand(count, 2), generator=seeded(2))
    assert abs(float(drawn.mean() - exact)) < 4.5 * float(drawn.std()) / count**0.5
    assert float(drawn.std()) > 0.01


def test_what_has_no_density_is_refused():
    x = torch.zeros(2, 2, dtype=torch.float64)
    objective = rv.MaximumLikelihood(2)
    with pytest.raises(rv.CapabilityError, match="Leave out x_1"):
        objective(CASES["plane"](), x, x_1=x)
    paired = rv.NetworkDenoiser(Small(2, 2, (2,)), rv.Interpolant(PLANE, rv.Paired()))
    with pytest.raises(rv.CapabilityError, match="no likelihood"):
        objective(paired, x)
    mask = rv.NetworkDenoiser(lambda x, t, cond: x, rv.Mask(rv.Categorical(3)))
    with pytest.raises(rv.CapabilityError, match="whose states jump"):
        objective(mask, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(rv.ClockError, match="number of steps"):
        rv.MaximumLikelihood(0)
    assert objective(CASES["plane"](), x[:0]).shape == (0,)
    single = objective(flow(PLANE, Small(2, 2, (2,)).float()), x.float())
    assert single.dtype == torch.float32
