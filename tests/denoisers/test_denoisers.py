r"""The oracles are Bayes' rule: against closed forms, enumeration, and one another.

.. math:: p(x_0 | x_t) \propto p(x_0) \prod_{\text{running}} q(x_t^d | x_0^d)
   \prod_{\text{known}} \delta(x_t^d, x_0^d) .
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv

MEAN = torch.tensor([0.5, -0.3], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)
STATES = torch.tensor([[0.9, 0.2], [-1.1, 0.4], [0.3, -1.6]], dtype=torch.float64)
SCHEDULES = [rv.VariancePreserving(), rv.Cosine(), rv.Rectified(), rv.VarianceExploding()]
schedules = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def real(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal_draws(n: int) -> Tensor:
    z = torch.randn((n, 2), generator=seeded(0), dtype=torch.float64)
    return MEAN + z @ torch.linalg.cholesky(COVARIANCE).mT


def oracle(schedule: Any) -> rv.GaussianData:
    return rv.GaussianData(rv.Gaussian(rv.Euclidean(2), schedule), MEAN, COVARIANCE)


def levels(schedule: Any, t: float) -> tuple[float, float]:
    signal = schedule.signal(real(t))
    return float(signal.alpha), float(signal.sigma)


@schedules
@pytest.mark.parametrize("clock", [real(0.35, 0.5, 0.7), real([0.4, 0.6], [0.6, 0.35], [0.5, 0.5])])
def test_gaussian_data_agrees_with_many_atoms(schedule, clock):
    """Importance sampling: the error of the mean over atoms has the variance sum w^2 (x - m)^2."""
    exact, atoms = oracle(schedule), normal_draws(20_000)
    empirical = rv.Empirical(exact.process, atoms)
    signal = schedule.signal(rv.Euclidean(2).align(clock))
    x_t = signal.alpha * STATES + signal.sigma * real(0.3, -0.5)
    clean = exact(x_t, clock).clean
    weights = empirical.weights(x_t, clock)
    error = empirical(x_t, clock).clean - clean
    stderr = (
        (weights**2 @ atoms**2 - 2 * clean * (weights**2 @ atoms))
        .add(clean**2 * (weights**2).sum(1, keepdim=True))
        .sqrt()
    )
    assert (error.abs() < 4.5 * stderr).all()
    assert stderr.max() < 0.15


@schedules
def test_gaussian_data_is_the_regression_on_both_noisy_entries(schedule):
    """Two clocks: x_t = A x_0 + S z, by the joint covariance written out entry by entry."""
    exact, t = oracle(schedule), real([0.3, 0.8])
    (a, s), (b, r) = levels(schedule, 0.3), levels(schedule, 0.8)
    (p, c), (_, q) = COVARIANCE.tolist()
    noisy = real([a * a * p + s * s, a * b * c], [a * b * c, b * b * q + r * r])
    cross = real([a * p, b * c], [a * c, b * q])
    x_t = STATES[:1]
    expected = MEAN + cross @ torch.linalg.inv(noisy) @ (x_t[0] - real(a, b) * MEAN)
    torch.testing.assert_close(exact(x_t, t).clean[0], expected, atol=1e-9, rtol=0)


@schedules
def test_a_known_entry_gives_the_gaussian_conditional(schedule):
    exact, clock = oracle(schedule), real([0.0, 0.45]).expand(3, 2)
    alpha, sigma = levels(schedule, 0.45)
    (p, c), (_, q) = COVARIANCE.tolist()
    mean = MEAN[1] + c / p * (STATES[:, 0] - MEAN[0])
    variance = q - c * c / p
    gain = alpha * variance / (alpha**2 * variance + sigma**2)
    expected = mean + gain * (STATES[:, 1] - alpha * mean)
    clean = exact(STATES, clock).clean
    torch.testing.assert_close(clean[:, 1], expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(clean[:, 0], STATES[:, 0], atol=1e-9, rtol=0)


@schedules
def test_a_dropped_entry_is_marginalized_out(schedule):
    exact, clock = oracle(schedule), real([1.0, 0.45]).expand(3, 2)
    alpha, sigma = levels(schedule, 0.45)
    (_, c), (_, q) = COVARIANCE.tolist()
    expected = (STATES[:, 1] - alpha * MEAN[1]) / (alpha**2 * q + sigma**2) * alpha * q + MEAN[1]
    clean = exact(STATES, clock).clean
    torch.testing.assert_close(clean[:, 1], expected, atol=1e-9, rtol=0)
    other = torch.stack([STATES[:, 0] + 5, STATES[:, 1]], 1)
    assert torch.equal(exact(other, clock).clean, clean)
    predicted = MEAN[0] + c / q * (clean[:, 1] - MEAN[1])
    torch.testing.assert_close(clean[:, 0], predicted, atol=1e-9, rtol=0)


@schedules
def test_score_of_gaussian_data_is_the_gradient_of_its_log_prob(schedule):
    exact, t = oracle(schedule), real(0.2, 0.5, 0.9)
    x_t = STATES.clone().requires_grad_()
    gradient = torch.autograd.grad(exact.log_prob(x_t, t).sum(), x_t)[0]
    torch.testing.assert_close(exact(STATES, t).score, gradient, atol=1e-9, rtol=1e-9)


@schedules
def test_last_step_of_gaussian_data_is_bayes_rule(schedule):
    exact, t = oracle(schedule), real(0.1, 0.4, 0.8)
    prior = torch.distributions.MultivariateNormal(MEAN, COVARIANCE)
    x_0, x_t = STATES, STATES.flip(0)
    likelihood = exact.process.kernel(x_0, t).log_prob(x_t)
    expected = prior.log_prob(x_0) + likelihood - exact.log_prob(x_t, t)
    torch.testing.assert_close(exact.last(x_0, x_t, t), expected, atol=1e-9, rtol=1e-9)


LAW = torch.rand((3, 3, 2), generator=seeded(3), dtype=torch.float64) ** 2
SPACES = {
    "mask": rv.Mask(rv.Categorical((3, 3, 2))),
    "uniform": rv.Uniform(rv.Categorical((3, 3, 2))),
    "product": rv.Independent(
        a=rv.Uniform(rv.Categorical(3), rv.ExponentialSurvival(2)),
        rest=rv.Mask(rv.Categorical((3, 2))),
    ),
}


def likelihood(kind: str, x: int, k: int, size: int, t: float, total: float | None) -> float:
    """q(x | k) of one site, and what a known or a dropped one counts."""
    if t == 1:
        return 1.0
    if t == 0:
        return float(x == k)
    alpha = 1 - t if total is None else float(torch.exp(real(-total * t)))
    fresh = float(x == 3) if kind == "mask" else 1 / size
    return alpha * (x == k) + (1 - alpha) * fresh


def brute_force(sites: list[tuple[str, float | None]], x: list[int], t: list[float]) -> Tensor:
    """The normalized posterior over all states, ``(3, 3, 2)``, by a loop over them."""
    joint = LAW.clone()
    for codes in itertools.product(range(3), range(3), range(2)):
        for d, (kind, total) in enumerate(sites):
            joint[codes] *= likelihood(kind, x[d], codes[d], LAW.shape[d], t[d], total)
    return joint / joint.sum()


PATTERNS = [(0.4, 0.4, 0.4), (0.0, 0.7, 0.3), (1.0, 0.2, 0.6), (0.0, 1.0, 0.5), (0.9, 0.0, 0.1)]


@pytest.mark.parametrize("t", PATTERNS, ids=str)
@pytest.mark.parametrize("name", SPACES)
def test_enumerated_posterior_is_bayes_rule_by_brute_force(name, t):
    process = SPACES[name]
    denoiser = rv.Enumerated(process, LAW)
    masked = 3 if name == "mask" else 1
    codes = [[0, 1, 1], [2, 0, 0], [1, 2, 1]]
    if name != "uniform" and t[2] not in (0, 1):
        codes.append([1, 0, 3])
    if name == "mask" and t[1] not in (0, 1):
        codes.append([2, masked, 3])
    x, clock = torch.tensor(codes), real(t).expand(len(codes), 3)
    kinds = [("uniform", 2.0), ("mask", None), ("mask", None)]
    if name == "product":
        estimate = denoiser(
            {"a": x[:, 0], "rest": x[:, 1:]}, {"a": clock[:, 0], "rest": clock[:, 1:]}
        )
        first, rest = estimate["a"].posterior.exp(), estimate["rest"].posterior.exp()
        found = [first, rest[:, 0], rest[:, 1]]
    else:
        kinds = [(name, None)] * 3
        found = list(denoiser(x, clock).posterior.exp().unbind(1))
    for row, code in enumerate(codes):
        posterior = brute_force(kinds, code, list(t))
        for d, others in enumerate(((1, 2), (0, 2), (0, 1))):
            expected = posterior.sum(others)
            torch.testing.assert_close(found[d][row, : len(expected)], expected, atol=1e-9, rtol=0)
            assert (found[d][row, len(expected) :] == 0).all()


def test_empirical_weights_are_bayes_rule_where_atoms_share_values():
    """Atoms 0 and 1 agree in the token, 1 and 2 in the vector; unequal weights."""
    process = rv.Independent(
        v=rv.Gaussian(rv.Euclidean(2)),
        token=rv.Uniform(rv.Categorical(4), rv.ExponentialSurvival(2)),
    )
    atoms = {"v": real([0.0, 0.0], [1.0, -1.0], [1.0, -1.0]), "token": torch.tensor([2, 2, 0])}
    denoiser = rv.Empirical(process, atoms, real(1.0, 2.0, 5.0))
    x, t = {"v": real([0.4, -0.2]), "token": torch.tensor([0])}, real(0.3)
    alpha, sigma = levels(rv.VariancePreserving(), 0.3)
    squares = ((x["v"] - alpha * atoms["v"]) ** 2).sum(1) / (2 * sigma**2)
    survival = torch.exp(real(-0.6))
    token = survival * (atoms["token"] == 0) + (1 - survival) / 4
    joint = real(1.0, 2.0, 5.0) * torch.exp(-squares) * token
    weights = joint / joint.sum()
    torch.testing.assert_close(denoiser.weights(x, t)[0], weights, atol=1e-9, rtol=0)
    estimate = denoiser(x, t)
    expected = real(*[weights[atoms["token"] == k].sum() for k in range(4)])
    torch.testing.assert_close(estimate["token"].posterior[0].exp(), expected, atol=1e-9, rtol=0)
    clean = weights @ atoms["v"]
    torch.testing.assert_close(estimate["v"].clean[0], clean, atol=1e-9, rtol=0)


def test_known_and_dropped_factors_enter_the_weights_as_evidence_and_not_at_all():
    process = rv.Independent(v=rv.Gaussian(rv.Euclidean(1)), token=rv.Mask(rv.Categorical(3)))
    atoms = {"v": real([0.0], [1.0], [0.0]), "token": torch.tensor([0, 1, 2])}
    denoiser = rv.Empirical(process, atoms, real(0.2, 0.5, 0.3))
    x = {"v": real([0.0]), "token": torch.tensor([3])}
    known = denoiser.weights(x, {"v": real(0.0), "token": real(0.5)})
    torch.testing.assert_close(known[0], real(0.4, 0.0, 0.6), atol=1e-9, rtol=0)
    dropped = denoiser.weights(x, {"v": real(1.0), "token": real(0.5)})
    torch.testing.assert_close(dropped[0], real(0.2, 0.5, 0.3), atol=1e-9, rtol=0)
    both = {"v": real([0.0]), "token": torch.tensor([2])}
    certain = denoiser.weights(both, {"v": real(0.0), "token": real(0.0)})
    torch.testing.assert_close(certain[0], real(0.0, 0.0, 1.0), atol=1e-9, rtol=0)


@pytest.mark.parametrize("space", [rv.Torus(2), rv.SO3()], ids=["torus", "rotations"])
def test_empirical_score_on_a_manifold_is_the_gradient_of_its_log_marginal(space):
    process, n = rv.Brownian(space), 4
    like = torch.empty((), dtype=torch.float64)
    atoms, x = (process.prior.sample(n, seeded(seed), like) for seed in (1, 2))
    weights, t = real(0.1, 0.2, 0.3, 0.4), real(0.2, 0.3, 0.5, 0.8)
    step = torch.zeros((n, *space.tangent_shape), dtype=torch.float64, requires_grad=True)
    moved = space.move(x, step)
    logs = [
        process.kernel(atom.expand(n, *space.event_shape), t).log_prob(moved) + weight.log()
        for atom, weight in zip(atoms, weights, strict=True)
    ]
    gradient = torch.autograd.grad(torch.stack(logs).logsumexp(0).sum(), step)[0]
    score = rv.Empirical(process, atoms, weights)(x, t).score
    torch.testing.assert_close(score, gradient, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p, a: rv.Empirical(p, a[:, :1]), r"`atoms` to have shape .* Put the batch first"),
        (lambda p, a: rv.Empirical(p, a, real(1.0, 2.0)), r"weight >= 0 .* weights=None"),
        (lambda p, a: rv.Empirical(p, a, real(1.0, -1.0, 1.0)), r"weight >= 0 .* weights=None"),
        (lambda p, a: rv.Empirical(p, a, real(0.0, 0.0, 0.0)), r"weight >= 0 .* weights=None"),
        (lambda p, a: rv.Empirical(p, a[:0]), r"at least one atom, got 0 .* weights=None"),
        (lambda p, a: rv.Empirical(p, a / 0), r"item 0 does not.* Look for NaN"),
        (lambda p, a: rv.GaussianData(p, MEAN[:1], COVARIANCE), r"mean \(d,\) .* Flatten"),
        (lambda p, a: rv.GaussianData(p, MEAN, COVARIANCE[0]), r"covariance \(d, d\).* Flatten"),
        (lambda p, a: rv.Enumerated(rv.Mask(rv.Categorical(3, 2)), LAW), r"\(3, 3\).* Sum to one"),
        (lambda p, a: rv.Enumerated(p, LAW), r"one axis per site"),
    ],
)
def test_wrong_shapes_and_weights_are_refused_with_the_cure(make, message):
    with pytest.raises(rv.SpaceError, match=message):
        make(rv.Gaussian(rv.Euclidean(2)), STATES)
