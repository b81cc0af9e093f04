r"""The system of moment matching, solved row by row: exact on covariances, bounded on the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal.guidance.evidence import conjugate_gradients
from tests.guidance.test_guidance import seeded
from tests.guidance.test_reconstruction import OPERATOR, SEEN, conditional, noised, normal


def test_conjugate_gradients_are_exact_as_soon_as_they_have_met_every_eigenvalue():
    """Six numbers seen of three entries: the covariance has four eigenvalues, 1 among them."""
    operator = torch.randn((6, 3), generator=seeded(3), dtype=torch.float64)
    y = torch.randn(6, generator=seeded(4), dtype=torch.float64)
    noise = torch.full((6,), 0.4, dtype=torch.float64)
    free = normal(rv.Cosine())
    given, _ = conditional(free, operator, y, noise)
    x_t, t = noised(free)
    errors = []
    for iterations in (1, 2, 4):
        matched = rv.MomentMatching(rv.LinearObservation(operator, y, noise), iterations)
        guided = rv.Reconstruction(free, matched)(x_t, t).clean
        errors.append(float((guided - given(x_t, t).clean).abs().max()))
    assert min(errors[:2]) > 1e-3
    assert errors[2] < 1e-8


def test_conjugate_gradients_solve_every_row_on_its_own():
    rows, m = 30, 5
    roots = torch.randn((rows, m, m), generator=seeded(5), dtype=torch.float64)
    roots = roots * torch.logspace(-2, 1, rows, dtype=torch.float64)[:, None, None]
    matrices = torch.eye(m, dtype=torch.float64) + roots @ roots.mT
    b = torch.randn((rows, m), generator=seeded(6), dtype=torch.float64)
    b[0] = 0

    def solve(pick: Any, iterations: int) -> Tensor:
        chosen = matrices[pick]
        product = lambda w: (chosen @ w[..., None]).squeeze(-1)  # noqa: E731
        return conjugate_gradients(product, b[pick], iterations)[0]

    together = solve(slice(None), 40)
    torch.testing.assert_close(together, torch.linalg.solve(matrices, b), atol=1e-9, rtol=1e-7)
    for row in range(rows):
        alone = solve(slice(row, row + 1), 3)
        torch.testing.assert_close(alone, solve(slice(None), 3)[row : row + 1], atol=0, rtol=1e-9)


@pytest.mark.parametrize("iterations", [1, 2])
def test_a_jacobian_that_is_no_covariance_moves_nobody_further_than_what_is_missing(iterations):
    """Networks have such Jacobians; here one that turns, and one that is negative."""
    process = rv.Gaussian(rv.Euclidean(3), rv.Cosine())
    turn = torch.tensor([[0.0, 2.0, 0.0], [-2.0, 0.0, 1.0], [0.5, 0.0, -3.0]], dtype=torch.float64)
    for matrix in (turn, -torch.eye(3).double()):
        free = rv.NetworkDenoiser(lambda x, t, cond, m=matrix: x @ m, process, rv.Clean())
        seen = rv.LinearObservation(OPERATOR, SEEN, 0.01)
        x_t, t = noised(free)
        guided = rv.Reconstruction(free, rv.MomentMatching(seen, iterations))(x_t, t).clean
        moved = (guided - free(x_t, t).clean) @ OPERATOR.mT
        missing = SEEN - free(x_t, t).clean @ OPERATOR.mT
        assert (moved.norm(dim=1) <= missing.norm(dim=1) * (1 + 1e-9)).all()
