r"""The flow's log-density is the closed form: Gaussian data, mixtures, images, heat kernels.

Under Gaussian data N(m, C) the flow is affine. Along an eigenvector of C with eigenvalue c,

.. math:: x_1 - \alpha_1 m = \sqrt{v_1 / v_0}\, (x_0 - m), \qquad v_t = \alpha_t^2 c + \sigma_t^2,

so that the density of the prior, carried back, is known: it contains the prior's own mismatch.
"""

from __future__ import annotations

import math
from typing import Any, final

import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal.core import Denoiser
from tests.test_likelihood_real import ANGLES, WEIGHTS, HeatMixture, rotations

SCHEDULES = [
    rv.VariancePreserving(),
    rv.Cosine(),
    rv.Cosine(exponent=2.0),
    rv.VarianceExploding(),
    rv.Rectified(),
]
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def gaussian_data(d: int, schedule: Any, dtype: torch.dtype = torch.float64) -> rv.GaussianData:
    root = normal(d, d, seed=1) / d**0.5
    covariance = root @ root.T + 0.1 * torch.eye(d, dtype=torch.float64)
    process = rv.Gaussian(rv.Euclidean(d), schedule)
    return rv.GaussianData(process, (0.5 * normal(d, seed=2)).to(dtype), covariance.to(dtype))


def drawn(denoiser: rv.GaussianData, n: int) -> Tensor:
    root = torch.linalg.cholesky(denoiser.covariance.double())
    z = normal(n, len(root), seed=3)
    return (denoiser.mean.double() + z @ root.T).to(denoiser.mean.dtype)


def carried_back(denoiser: rv.GaussianData, x: Tensor) -> Tensor:
    """The log-density of the prior, carried back by the affine flow."""
    one = torch.ones((), dtype=torch.float64)
    last = denoiser.process.schedule.signal(one)
    values, vectors = torch.linalg.eigh(denoiser.covariance.double())
    stretch = ((last.alpha**2 * values + last.sigma**2) / values).sqrt()
    mean = denoiser.mean.double()
    x_1 = last.alpha * mean + ((x.double() - mean) @ vectors * stretch) @ vectors.T
    return denoiser.process.prior.log_prob(x_1) + stretch.log().sum()


def marginal(denoiser: Any) -> Any:
    """The exact law at t = 1."""
    return lambda x: denoiser.log_prob(x, torch.ones(len(x), dtype=torch.float64))


@schedules
@pytest.mark.parametrize(("d", "n"), [(1, 8), (2, 4), (10, 2)])
def test_log_density_of_gaussian_data_is_the_closed_form_and_the_bias_covers_the_error(
    schedule, d, n
):
    denoiser = gaussian_data(d, schedule)
    x = drawn(denoiser, n)
    found = rv.flow_log_prob(denoiser, x)
    error = (found.value - carried_back(denoiser, x)).abs()
    assert error.max() < 1e-4 * d
    assert (error <= found.bias + 1e-8).all()
    assert (found.bias < 1e-3 * d).all()
    assert (found.kind, found.measure, found.stderr.abs().sum()) == ("log-density", "Lebesgue", 0)


@pytest.mark.parametrize("d", [1, 2, 10, 50])
def test_with_the_true_law_at_the_end_it_is_the_log_density_of_the_data(d):
    denoiser = gaussian_data(d, rv.VariancePreserving())
    x = drawn(denoiser, 2)
    found = rv.flow_log_prob(denoiser, x, prior=marginal(denoiser))
    law = torch.distributions.MultivariateNormal(denoiser.mean, denoiser.covariance)
    assert ((found.value - law.log_prob(x)).abs() < 1e-4 * d).all()


@schedules
def test_float32_keeps_a_thousandth_of_a_nat_per_dimension(schedule):
    denoiser = gaussian_data(4, schedule, torch.float32)
    x = drawn(denoiser, 4)
    found = rv.flow_log_prob(denoiser, x)
    assert found.value.dtype == torch.float64
    error = (found.value - carried_back(denoiser, x)).abs()
    assert error.max() < 4e-3
    assert (error <= 2 * found.bias + 1e-4).all()


@pytest.mark.parametrize("schedule", [rv.Rectified(), rv.VariancePreserving()], ids=str)
def test_too_few_steps_say_that_they_did_not_converge(schedule):
    denoiser = gaussian_data(2, schedule)
    x = drawn(denoiser, 8)
    truth = carried_back(denoiser, x)
    for steps in (2, 4, 8, 16, 32, 64):
        found = rv.flow_log_prob(denoiser, x, solver=rv.RungeKutta(steps))
        error = (found.value - truth).abs()
        assert (error <= found.bias).all()
        late = int((found.bias > 2e-3).sum())
        said = f"log-density, not converged in {late} of 8 rows" if late else "log-density"
        assert found.kind == said
        if steps == 2:
            assert late == 8
    assert late == 0


def test_a_row_that_cannot_be_followed_says_so():
    denoiser = gaussian_data(2, rv.VariancePreserving())
    with pytest.raises(rv.ConvergenceError, match="at most 3 steps"):
        rv.flow_log_prob(denoiser, drawn(denoiser, 3), solver=rv.DormandPrince(max_steps=3))


def test_points_have_no_density_and_are_called_not_converged():
    atoms = normal(3, 2)
    denoiser = rv.Empirical(rv.Gaussian(rv.Euclidean(2), rv.Rectified()), atoms)
    found = rv.flow_log_prob(denoiser, atoms)
    assert (found.bias > 0.1).all()
    assert "not converged in 3 of 3" in found.kind


def mixture(*shape: int, schedule: Any = None, scale: float = 0.4) -> rv.GaussianMixture:
    process = rv.Gaussian(rv.Euclidean(*shape), schedule)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    variances = torch.full((4,), scale**2, dtype=torch.float64)
    return rv.GaussianMixture(process, weights, normal(4, *shape, seed=4), variances)


@pytest.mark.parametrize("shape", [(2,), (2, 2, 2), (1, 3, 3)], ids=str)
def test_log_density_of_mixtures_of_vectors_and_images_is_the_closed_form(shape):
    denoiser = mixture(*shape)
    x = denoiser.means[:3] + 0.3 * normal(3, *shape, seed=5)
    found = rv.flow_log_prob(denoiser, x, prior=marginal(denoiser))
    truth = denoiser.log_prob(x, torch.zeros(3, dtype=torch.float64))
    assert ((found.value - truth).abs() < 1e-3 * math.prod(shape)).all()
    assert ((found.value - truth).abs() <= found.bias + 1e-7).all()


@pytest.mark.parametrize("d", [1, 2])
def test_the_density_integrates_to_one(d):
    """The trapezoidal rule on a lattice; the prior is the path's own."""
    denoiser = mixture(d, schedule=rv.Rectified(), scale=0.6)
    line = torch.linspace(-6, 6, 81 if d == 1 else 31, dtype=torch.float64)
    lattice = torch.cartesian_prod(*[line] * d).view(-1, d)
    found = rv.flow_log_prob(denoiser, lattice, solver=rv.RungeKutta(16))
    total = found.value.exp().sum() * (line[1] - line[0]) ** d
    assert float(total) == pytest.approx(1, abs=2e-4)


def test_a_row_comes_out_alike_alone_and_in_a_batch():
    denoiser = mixture(2)
    x = torch.cat([0.1 * normal(4, 2), 5 + normal(4, 2)])
    loose = rv.DormandPrince(1e-3, 1e-3)
    whole = rv.flow_log_prob(denoiser, x, solver=loose)
    for row in (0, 5):
        alone = rv.flow_log_prob(denoiser, x[row : row + 1], solver=loose)
        torch.testing.assert_close(alone.value[0], whole.value[row], atol=1e-10, rtol=0)
        torch.testing.assert_close(alone.bias[0], whole.bias[row], atol=1e-10, rtol=0)
    noise = rv.ItemNoise(torch.arange(8))
    probes = rv.flow_log_prob(denoiser, x, probes=2, generator=noise, solver=loose).value
    alone = rv.flow_log_prob(
        denoiser, x[5:6], probes=2, generator=rv.ItemNoise([5]), solver=loose
    ).value
    torch.testing.assert_close(alone[0], probes[5], atol=1e-10, rtol=0)


def test_probes_are_unbiased_with_an_honest_standard_error():
    """400 estimates of one value; failure rate 1e-4 each, for the mean and for the spread."""
    denoiser = mixture(2, 2)
    x = denoiser.means[:1] + 0.2
    solver = rv.RungeKutta(16)
    exact = rv.flow_log_prob(denoiser, x, probes=0, solver=solver).value
    many = x.repeat(400, 1, 1)
    found = rv.flow_log_prob(denoiser, many, probes=4, generator=seeded(7), solver=solver)
    spread = found.value.std()
    assert abs(found.value.mean() - exact).item() < 3.9 * spread / 20
    said = found.stderr.square().mean().sqrt()
    assert abs(said / spread - 1) < 3.9 * (1 / math.sqrt(2 * 399) + 1 / math.sqrt(2 * 1200))


@pytest.mark.parametrize("space", [rv.Torus(1), pytest.param(rv.SO3(), marks=pytest.mark.slow)])
def test_log_density_on_a_manifold_is_that_of_the_heat_mixture(space):
    atoms = ANGLES if isinstance(space, rv.Torus) else rotations(3)
    denoiser = HeatMixture(space, atoms, WEIGHTS)
    x = denoiser.process.kernel(atoms, torch.full((3,), 0.2, dtype=torch.float64)).sample(seeded(6))
    found = rv.flow_log_prob(denoiser, x, prior=lambda y: denoiser.log_prob(y, 1.0))
    truth = denoiser.log_prob(x, 0.0)
    assert ((found.value - truth).abs() < 1e-3).all()
    assert ((found.value - truth).abs() <= found.bias + 1e-7).all()
    assert found.measure == "uniform probability"
    probes = rv.flow_log_prob(
        denoiser, x.repeat_interleave(64, 0), probes=4, generator=seeded(9),
        solver=rv.RungeKutta(20), prior=lambda y: denoiser.log_prob(y, 1.0),
    )  # fmt: skip
    error = (probes.value - truth.repeat_interleave(64)).view(3, 64)
    spread = (probes.stderr.view(3, 64) ** 2).sum(1).sqrt() / 64
    assert (error.mean(1).abs() < 3.9 * spread + 1e-3).all()


def product() -> tuple[rv.Empirical, dict[str, Tensor]]:
    process = rv.Independent(
        place=rv.Gaussian(rv.Euclidean(2), rv.Rectified()), label=rv.Mask(rv.Categorical(3))
    )
    atoms = {"place": normal(40, 2), "label": torch.arange(40) % 3}
    return rv.Empirical(process, atoms), atoms


def test_a_factor_given_a_finite_one_has_the_density_of_the_conditional_alone():
    """Given a label the flow of a product is that of the points with this label."""
    joint, atoms = product()
    x = {"place": normal(3, 2, seed=5), "label": torch.tensor([0, 1, 2])}
    solver = rv.RungeKutta(20)
    found = rv.flow_log_prob(joint, x, given={"label": True}, solver=solver)
    for row in range(3):
        own = atoms["place"][atoms["label"] == row]
        alone = rv.Empirical(joint.process.factors["place"], own)
        value = rv.flow_log_prob(alone, x["place"][row : row + 1], solver=solver).value
        torch.testing.assert_close(found.value[row : row + 1], value, atol=1e-8, rtol=0)
    marginal_ = rv.flow_log_prob(
        joint, x, observed={"place": None, "label": torch.tensor(False)}, generator=seeded(1),
        solver=solver,
    )  # fmt: skip
    free = rv.Empirical(joint.process.factors["place"], atoms["place"])
    value = rv.flow_log_prob(free, x["place"], solver=solver).value
    torch.testing.assert_close(marginal_.value, value, atol=1e-8, rtol=0)


def test_a_product_of_real_factors_is_scored_at_once():
    """Two independent factors: the sum; the density of one given the other is its own."""
    parts = {"a": gaussian_data(1, rv.Rectified()), "b": gaussian_data(2, rv.Cosine())}
    joint = Joined(parts)
    x = {name: drawn(part, 3) for name, part in parts.items()}
    alone = {name: rv.flow_log_prob(part, x[name]).value for name, part in parts.items()}
    found = rv.flow_log_prob(joint, x)
    torch.testing.assert_close(found.value, alone["a"] + alone["b"], atol=1e-3, rtol=0)
    assert found.measure == {"a": "Lebesgue", "b": "Lebesgue"}
    given = rv.flow_log_prob(joint, x, given={"a": True})
    torch.testing.assert_close(given.value, alone["b"], atol=1e-3, rtol=0)


@final
class Joined(Denoiser):
    """Independent factors, each with its own denoiser."""

    def __init__(self, parts: dict[str, Any]) -> None:
        super().__init__()
        self.own = parts
        self.process = rv.Independent({name: part.process for name, part in parts.items()})
        self.clocks = rv.AnyClock()

    @property
    def like(self) -> Tensor:
        return next(iter(self.own.values())).like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> rv.JointEstimate:
        times = t if isinstance(t, dict) else dict.fromkeys(self.own, t)
        return rv.JointEstimate({k: part(x_t[k], times[k]) for k, part in self.own.items()})


def test_a_known_entry_of_a_vector_leaves_the_conditional_density():
    """p(x_1 | x_0) of a Gaussian in the plane, and p(x_1) where x_0 is missing."""
    denoiser = gaussian_data(2, rv.Rectified())
    x = drawn(denoiser, 4)
    mean, cov = denoiser.mean, denoiser.covariance
    first = torch.tensor([True, False])
    slope = cov[0, 1] / cov[0, 0]
    known = torch.distributions.Normal(
        mean[1] + slope * (x[:, 0] - mean[0]), (cov[1, 1] - slope * cov[0, 1]).sqrt()
    )
    found = rv.flow_log_prob(denoiser, x, given=first)
    assert ((found.value - known.log_prob(x[:, 1])).abs() < 1e-4).all()
    alone = torch.distributions.Normal(mean[1], cov[1, 1].sqrt())
    found = rv.flow_log_prob(denoiser, x, observed=~first, generator=seeded(2))
    assert ((found.value - alone.log_prob(x[:, 1])).abs() < 1e-4).all()


def test_an_interpolant_with_a_prior_has_the_density_of_rectified_flow():
    """x_t = (1 - t) x_0 + t x_1 with normal x_1 is the path of ``Rectified``."""
    space = rv.Euclidean(2)
    data = gaussian_data(2, rv.Rectified())
    path = rv.Interpolant(space, rv.Unpaired(rv.NormalPrior(space, 1.0)))

    def network(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return data(x, t.double()).velocity

    denoiser = rv.NetworkDenoiser(network, path, rv.Velocity())
    x = drawn(data, 3)
    found = rv.flow_log_prob(denoiser, x)
    assert ((found.value - carried_back(data, x)).abs() < 1e-4).all()
    assert found.measure == "Lebesgue"
    paired = rv.NetworkDenoiser(network, rv.Interpolant(space, rv.Paired()), rv.Velocity())
    with pytest.raises(rv.CapabilityError, match=r"no likelihood\. Use a coupling with a prior"):
        rv.flow_log_prob(paired, x)


@pytest.mark.parametrize("schedule", [rv.Rectified(), rv.VariancePreserving()], ids=str)
def test_samples_come_with_their_log_density(schedule):
    denoiser = gaussian_data(3, schedule)
    x, found = rv.sample_with_log_prob(denoiser, 6, generator=seeded(3))
    error = (found.value - carried_back(denoiser, x)).abs()
    assert error.max() < 1e-3
    assert found.kind == "log-density"
    again = rv.flow_log_prob(denoiser, x)
    torch.testing.assert_close(again.value, found.value, atol=1e-3, rtol=0)
    single, _ = rv.sample_with_log_prob(
        gaussian_data(3, schedule, torch.float32), 2, generator=seeded(3)
    )
    assert single.dtype == torch.float32


def test_samples_given_a_part_keep_it_and_have_the_conditional_density():
    denoiser = gaussian_data(2, rv.Rectified())
    known = torch.tensor([True, False])
    x, found = rv.sample_with_log_prob(
        denoiser, 4, given=(torch.tensor([0.3, 0.0]), known), generator=seeded(4)
    )
    assert (x[:, 0] == torch.tensor(0.3)).all()
    again = rv.flow_log_prob(denoiser, x, given=known)
    torch.testing.assert_close(again.value, found.value, atol=1e-4, rtol=0)


def test_no_items_give_no_values():
    denoiser = gaussian_data(2, rv.Rectified())
    assert rv.flow_log_prob(denoiser, torch.zeros(0, 2, dtype=torch.float64)).value.shape == (0,)
    x, found = rv.sample_with_log_prob(denoiser, 0)
    assert (x.shape, found.value.shape, found.kind) == ((0, 2), (0,), "log-density")


def test_the_parameters_of_a_network_keep_no_gradient(global_seed):
    network = torch.nn.Linear(2, 2).double()
    process = rv.Gaussian(rv.Euclidean(2), rv.Rectified())
    denoiser = rv.NetworkDenoiser(lambda x, t, cond: network(x), process, rv.Velocity())
    found = rv.flow_log_prob(denoiser, normal(2, 2), solver=rv.RungeKutta(4))
    assert not found.value.requires_grad
    assert network.weight.grad is None


def test_where_everything_is_given_nothing_is_left_to_score():
    denoiser = gaussian_data(2, rv.Rectified())
    found = rv.flow_log_prob(denoiser, drawn(denoiser, 3), given=torch.tensor([True, True]))
    assert torch.equal(found.value, torch.zeros(3, dtype=torch.float64))


def test_inference_mode_is_refused_for_it_has_no_divergence():
    denoiser = gaussian_data(2, rv.Rectified())
    x = drawn(denoiser, 1)
    with torch.inference_mode(), pytest.raises(rv.CapabilityError, match=r"Use torch\.no_grad"):
        rv.flow_log_prob(denoiser, x)


def test_a_network_without_numbers_is_refused_or_called_not_converged():
    process = rv.Gaussian(rv.Euclidean(2))
    denoiser = rv.NetworkDenoiser(lambda x, t, cond: x * math.nan, process)
    with pytest.raises(rv.ConvergenceError, match="row 0"):
        rv.flow_log_prob(denoiser, torch.zeros(2, 2))
    found = rv.flow_log_prob(denoiser, torch.zeros(2, 2), solver=rv.RungeKutta(4))
    assert found.bias.isinf().all()
    assert "not converged in 2 of 2" in found.kind


def test_what_jumps_and_what_is_wrong_is_refused_with_the_cure():
    joint, atoms = product()
    with pytest.raises(rv.CapabilityError, match=r"whose states jump\. Use elbo\(\)"):
        rv.flow_log_prob(joint, atoms)
    with pytest.raises(rv.CapabilityError, match="jump"):
        rv.sample_with_log_prob(joint, 3)
    denoiser = gaussian_data(2, rv.Rectified())
    x = drawn(denoiser, 2)
    with pytest.raises(rv.SpaceError, match="probes >= 0"):
        rv.flow_log_prob(denoiser, x, probes=-1)
    with pytest.raises(rv.SpaceError, match="item 1 does not"):
        rv.flow_log_prob(denoiser, torch.tensor([[0.0, 0.0], [0.0, math.nan]]).double())
    with pytest.raises(rv.ClockError, match="at least 2 steps"):
        rv.flow_log_prob(denoiser, x, solver=rv.RungeKutta(1))
    with pytest.raises(rv.ClockError, match="positive tolerances"):
        rv.DormandPrince(rtol=0.0)
