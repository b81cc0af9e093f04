"""Random probes and drawn jumps: unbiased for what is linear in them, at a cost without d."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import reversal as rv
from reversal import state
from reversal.core import DenseJumps
from reversal.operators import Local, Reversal, Tangent, Tilt, Traces
from reversal.testing.statistics import require_mean
from tests.operators.laws import CASES, Case

DRAWS = 2000
WORDS: dict[str, Callable[[Local, Case], Callable[[Any], Tensor]]] = {
    "L f": lambda op, case: op(case.log_beta),
    "L* g": lambda op, case: op.adjoint(lambda x: case.log_beta(x).sin()),
    "implicit": lambda op, case: op.implicit(case.log_beta),
    "Phi": lambda op, case: op.phi(case.log_beta),
    "reversal": lambda op, case: Reversal(op, case.log_q)(case.log_beta),
    "Doob": lambda op, case: Tilt(op, case.log_beta)(case.log_q),
    "potential": lambda op, case: op.potential(case.log_beta),
}


def drawn(operator: Local, seed: int = 0) -> Local:
    """The operator with one probe and one jump per item."""
    source = torch.Generator().manual_seed(seed)
    return Local(operator.space, operator.characteristics, Traces(1, 1, source))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_linear_in_the_draws_is_unbiased(case: Case) -> None:
    """Means of 2,000 draws beside the mode: a failure rate of 1e-4 over the seven words."""
    row = (int(case.log_q(case.nodes).argmax()) + 1) % len(case.log_weights)
    one = state.map(lambda part: part[row : row + 1], case.nodes)
    wide = state.map(lambda part: part.expand(DRAWS, *part.shape[1:]), one)
    for name, word in WORDS.items():
        exact = word(case.operator, case)(one).detach()
        draws = word(drawn(case.operator), case)(wide).detach()
        assert float(draws.std()) > 1e-3, name
        require_mean(draws[:, None], exact, of=f"{name} on {case}", rate=1e-4 / len(WORDS))


def test_the_divergence_of_a_covariance_is_unbiased() -> None:
    """Wright-Fisher's div a, component by component."""
    case = next(c for c in CASES if c.name == "simplex")
    one = case.nodes[500:501]
    exact = case.operator.divergence_of_covariance()(one).detach()
    draws = drawn(case.operator).divergence_of_covariance()(one.expand(DRAWS, -1)).detach()
    assert float(draws.std(0).max()) > 0.1
    require_mean(draws, exact, of="div a")


def test_several_probes_are_a_mean() -> None:
    """Three probes and three jumps: the same means, and a third of the variance."""
    case = next(c for c in CASES if c.name == "product")
    row = int(case.log_q(case.nodes).argmax()) + 1
    wide = state.map(lambda part: part[row : row + 1].expand(DRAWS, *part.shape[1:]), case.nodes)
    plane, spread = next(c for c in CASES if c.name == "R^2"), []
    point = torch.tensor([[0.7, -0.2]], dtype=torch.float64).expand(DRAWS, -1)
    for count in (1, 3):
        traces = Traces(count, count, torch.Generator().manual_seed(count))
        for of, x in ((case, wide), (plane, point)):
            operator = Local(of.operator.space, of.operator.characteristics, traces)
            draws = operator.implicit(of.log_beta)(x).detach()
            one = state.map(lambda part: part[:1], x)
            exact = of.operator.implicit(of.log_beta)(one).detach()
            require_mean(draws[:, None], exact, of=f"{count} draws on {of}")
            spread.append(float(draws.var()))
    for single, three in zip(spread[:2], spread[2:], strict=True):
        assert 2.4 < single / three < 3.6


def test_gradients_of_drawn_jumps_are_unbiased() -> None:
    """Rates that are themselves differentiated: d/dr of L f is f(y) - f(x), jump by jump."""
    rates = torch.tensor([0.0, 0.7, 0.2, 1.1], dtype=torch.float64, requires_grad=True)
    f = torch.tensor([0.3, -0.4, 0.8, 0.1], dtype=torch.float64)
    x = torch.zeros(DRAWS, dtype=torch.int64)
    wide = rates.expand(DRAWS, 4).detach().requires_grad_()
    operator = Local(
        rv.Categorical(4),
        lambda _: rv.Generator(jumps=DenseJumps(wide)),
        Traces(None, 1, torch.Generator().manual_seed(0)),
    )
    slopes = torch.autograd.grad(operator(lambda y: f[y])(x).sum(), wide)[0]
    require_mean(slopes[:, 1:], (f - f[0])[1:], of="the gradient by the rates")


def quadratic(d: int) -> tuple[Local, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """An Ornstein-Uhlenbeck operator, a Gaussian log beta, and L* b / b + L log b by hand."""
    w = torch.linspace(-1, 1, d, dtype=torch.float64) / d**0.5

    def log_beta(x: Tensor) -> Tensor:
        return -(x**2).sum(1) / 2 + (x @ w) ** 2 / 4

    def by_hand(x: Tensor) -> Tensor:
        slope, bend = -x + (x @ w)[:, None] * w / 2, -d + w.square().sum() / 2
        return d / 2 + bend + (slope**2).sum(1) / 2

    operator = Local(rv.Euclidean(d), lambda x: rv.Generator(-x / 2, torch.ones_like(x)))
    return operator, log_beta, by_hand


def test_a_thousand_dimensions_by_probes() -> None:
    """L* b / b + L log b of a coupled Gaussian against its formula, which the axes give too."""
    operator, log_beta, by_hand = quadratic(4)
    few = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(operator.implicit(log_beta)(few), by_hand(few), rtol=0, atol=1e-12)
    operator, log_beta, by_hand = quadratic(1000)
    x = torch.randn(1, 1000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    draws = drawn(operator).implicit(log_beta)(x.expand(200, -1)).detach()
    require_mean(draws[:, None], by_hand(x), of="the implicit objective at d = 1000")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for every vector-Jacobian product, those of a batch too."""
    seen, plain = [], torch.autograd.grad

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.extend([None] * (len(args[2]) if kwargs.get("is_grads_batched") else 1))
        return plain(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    return seen


def test_the_cost_does_not_grow_with_the_dimension(passes: list[None]) -> None:
    """Passes of L* b / b + L log b with one probe, at d = 3 and 300; every axis costs."""

    def count(d: int, traces: Traces) -> int:
        operator, log_beta, _ = quadratic(d)
        passes.clear()
        local = Local(operator.space, operator.characteristics, traces)
        local.implicit(log_beta)(torch.ones(2, d, dtype=torch.float64))
        return len(passes)

    probed = Traces(1, None, torch.Generator().manual_seed(0))
    assert count(3, probed) == count(300, probed) < 10
    assert count(12, Traces()) > count(3, Traces()) + 8


def test_an_implicit_loss_of_a_given_generator_costs_no_axes(passes: list[None]) -> None:
    """A constant covariance: nothing is differentiated to find that div a = 0."""
    d = 400
    space = rv.Euclidean(d)
    process = rv.FromGenerator(
        space,
        lambda x: rv.Generator(-x / 2, torch.ones_like(x)),
        rv.Gaussian(space).prior,
        steps=2,
    )
    energy = rv.Energy(lambda x, t, cond: -(x**2).sum(1) / 2, process)
    x_0 = torch.zeros(3, d)
    loss = rv.Implicit(probes=1)(energy, x_0, generator=torch.Generator().manual_seed(0))
    assert bool(loss.isfinite().all())
    assert len(passes) < 10


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_items_have_no_values(case: Case) -> None:
    """An empty batch, in full and drawn."""
    none = state.map(lambda part: part[:0], case.nodes)
    for operator in (case.operator, drawn(case.operator)):
        assert operator.implicit(case.log_beta)(none).shape == (0,)


def test_fields_are_differentiated_along_the_axes() -> None:
    """The divergence of (x y, y^3) is y + 3 y^2."""
    x = torch.tensor([[0.5, -0.3], [1.5, 2.0]], dtype=torch.float64)
    field = lambda p: torch.stack((p[:, 0] * p[:, 1], p[:, 1] ** 3), 1)  # noqa: E731
    found = Tangent(rv.Euclidean(2)).divergence(field, x)
    assert torch.allclose(found, x[:, 1] + 3 * x[:, 1] ** 2, rtol=0, atol=1e-12)
