r"""The trace of a Jacobian, by all axes and by random signs: Var z^T A z = 2 |A_off|^2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reversal.operators.traces import probed, trace
from tests.likelihood.test_flow import normal, seeded


def test_the_two_traces_are_those_of_the_matrix():
    """Exactly for signs along a diagonal, and with the variance 2 |A_off|^2 of a symmetric A."""
    matrix = normal(6, 6)
    matrix = matrix + matrix.T
    v = torch.zeros(4000, 6, dtype=torch.float64, requires_grad=True)
    output = v @ matrix
    torch.testing.assert_close(trace(output, v)[:, 0], matrix.trace().expand(4000))
    signs = 1 - 2 * torch.randint(0, 2, (4000, 1, 6), generator=seeded(8)).double()
    values = probed(output, v, signs)[:, 0]
    off = matrix - torch.diag(matrix.diagonal())
    std = (2 * off.square().sum()).sqrt()
    assert abs(values.mean() - matrix.trace()) < 3.9 * std / 4000**0.5
    diagonal = probed(v * matrix.diagonal(), v, signs)[:, 0]
    torch.testing.assert_close(diagonal, matrix.trace().expand(4000))


class _Step(torch.autograd.Function):
    """A function without a batched derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 3 * x

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        slope.sum().item()
        return 3 * slope


def test_a_network_without_batched_derivatives_is_differentiated_one_by_one():
    v = torch.zeros(2, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(trace(_Step.apply(v), v), torch.full_like(v[:, :1], 15))
