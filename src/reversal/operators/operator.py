r"""Generators as linear operators on functions, and what the theory makes of them.

An operator L has an adjoint L* in L^2(nu), with nu the reference measure of its space (Lebesgue,
counting, uniform). A positive function beta, given as :math:`u = \log \beta`, makes the reversal

.. math:: K f = \beta^{-1} \big[L^*(\beta f) - f L^* \beta\big],

exact at :math:`\beta = q_t`; where L is reversible with respect to pi it is Doob's transform of L
by :math:`h = q_t / \pi`. Generalized score matching is built on

.. math:: \Phi(f) = \frac{L f}{f} - L \log f \ge 0, \qquad
   J(\beta) = \frac{L^* \beta}{\beta} + L \log \beta .

Source: Benton, Shi, De Bortoli, Deligiannidis and Doucet (2024), sections 3 and 4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from reversal.errors import CapabilityError
from reversal.operators.derivatives import Function

Action = Callable[[Function], Function]


class Operator(ABC):
    """A linear operator on functions of a state, such as the generator of a Markov process.

    It calls a function on batches whose item i belongs to item i of the states asked for.
    """

    @abstractmethod
    def apply(self, f: Function) -> Function:
        """L f."""

    @abstractmethod
    def adjoint(self, g: Function) -> Function:
        """L* g in L^2 of the reference measure.

        Raises:
            CapabilityError: if the adjoint is not known.
        """

    @final
    def __call__(self, f: Function) -> Function:
        """L f."""
        return self.apply(f)

    @final
    def __add__(self, other: Operator) -> Operator:
        """The sum, such as that over the factors of a product."""
        return Sum((self, other))

    @final
    def __mul__(self, rate: float | Tensor) -> Operator:
        """The operator in another time: ``rate`` is a number, or one per item, ``(B,)``."""
        return Timed(self, rate)

    @final
    def relative(self, u: Function) -> Function:
        r"""Return :math:`e^{-u} L e^u`."""
        return conjugated(self.apply, u, one)

    @final
    def adjoint_relative(self, u: Function) -> Function:
        r"""Return :math:`e^{-u} L^* e^u`."""
        return conjugated(self.adjoint, u, one)

    @final
    def phi(self, log_f: Function) -> Function:
        r"""Phi(f) = L f / f - L log f, at least 0, and 0 for constants alone."""
        tilt, flow = self.relative(log_f), self.apply(log_f)
        return lambda x: tilt(x) - flow(x)

    @final
    def implicit(self, log_beta: Function) -> Function:
        r"""Return :math:`L^*\beta / \beta + L \log \beta`, whose mean under q_t is least at q_t."""
        inward, flow = self.adjoint_relative(log_beta), self.apply(log_beta)
        return lambda x: inward(x) + flow(x)

    @final
    def potential(self, log_beta: Function) -> Function:
        r"""The potential c of :math:`\partial_t v + M v + c v = 0`, v the generative marginal.

        .. math:: c = \beta L \beta^{-1} - \beta^{-1} L^* \beta,

        with M = ``Tilt(L, 1 / beta)``. It integrates to the density by Feynman and Kac's formula:
        :math:`p(x) = E[p_0(Z_T) \exp \int c(Z_t, t) dt \mid Z_0 = x]`, Z run by M.
        """
        outward, inward = self.relative(lambda x: -log_beta(x)), self.adjoint_relative(log_beta)
        return lambda x: outward(x) - inward(x)


@final
@dataclass(frozen=True)
class Sum(Operator):
    """The sum of operators."""

    parts: tuple[Operator, ...]

    def apply(self, f: Function) -> Function:
        """The sum of what the parts give."""
        return _summed([part.apply(f) for part in self.parts])

    def adjoint(self, g: Function) -> Function:
        """The sum of the adjoints."""
        return _summed([part.adjoint(g) for part in self.parts])


@final
@dataclass(frozen=True)
class Timed(Operator):
    """An operator per unit of another time: the rate at which its own clock runs, times it."""

    operator: Operator
    rate: float | Tensor

    def apply(self, f: Function) -> Function:
        """The rate times L f."""
        inner = self.operator.apply(f)
        return lambda x: self.rate * inner(x)

    def adjoint(self, g: Function) -> Function:
        """The rate times L* g."""
        inner = self.operator.adjoint(g)
        return lambda x: self.rate * inner(x)


@final
@dataclass(frozen=True)
class Linear(Operator):
    """An operator given as a map of functions: ``Linear(lambda f: ...)``.

    Args:
        forward: f to L f.
        backward: g to L* g; without it there is no reversal from beta and no implicit objective.
    """

    forward: Action
    backward: Action | None = None

    def apply(self, f: Function) -> Function:
        """What the given map makes of f."""
        return self.forward(f)

    def adjoint(self, g: Function) -> Function:
        """What the other given map makes of g."""
        if self.backward is None:
            raise CapabilityError(
                "Expected an operator whose adjoint is available, got one that was given by its "
                "action alone. Write Linear(forward, backward), or train by what needs no adjoint."
            )
        return self.backward(g)


@final
@dataclass(frozen=True)
class Adjoint(Operator):
    """L*, whose adjoint is L."""

    operator: Operator

    def apply(self, f: Function) -> Function:
        """L* f."""
        return self.operator.adjoint(f)

    def adjoint(self, g: Function) -> Function:
        """L g."""
        return self.operator.apply(g)


@final
@dataclass(frozen=True)
class Reversal(Operator):
    r"""The reversal :math:`K f = \beta^{-1} [L^*(\beta f) - f L^* \beta]`: L* tilted by beta.

    Args:
        operator: L.
        log_beta: log beta, a function of a state; a constant added to it changes nothing.
    """

    operator: Operator
    log_beta: Function

    def apply(self, f: Function) -> Function:
        """K f."""
        return Tilt(Adjoint(self.operator), self.log_beta).apply(f)

    def adjoint(self, g: Function) -> Function:
        r"""Return :math:`K^* g = \beta L(g / \beta) - g L^* \beta / \beta`."""
        return Tilt(Adjoint(self.operator), self.log_beta).adjoint(g)


@final
@dataclass(frozen=True)
class Tilt(Operator):
    r"""Doob's transform, :math:`h^{-1} [L(h f) - f L h]`.

    With L reversible with respect to pi and :math:`h = q_t / \pi` it is the reversal; with
    :math:`h = 1 / \beta` it is the auxiliary process M of the generalized Fokker-Planck equation.
    Source: Doob (1957).
    """

    operator: Operator
    log_h: Function

    def apply(self, f: Function) -> Function:
        """The tilted operator."""
        rate = self.operator.relative(self.log_h)
        moved = conjugated(self.operator.apply, self.log_h, f)
        return lambda x: moved(x) - f(x) * rate(x)

    def adjoint(self, g: Function) -> Function:
        r"""Return :math:`h L^*(g / h) - g L h / h`."""
        rate = self.operator.relative(self.log_h)
        moved = conjugated(self.operator.adjoint, lambda x: -self.log_h(x), g)
        return lambda x: moved(x) - g(x) * rate(x)


def conjugated(action: Action, u: Function, f: Function) -> Function:
    r"""Return :math:`e^{-u} A(e^u f)`, without ever forming the exponential of u alone.

    Raises:
        CapabilityError: where u is not finite at a state that is asked for; that it is minus
            infinity at a neighbor is legal.
    """

    def value(x: Any) -> Tensor:
        here = _positive(u(x))
        return action(lambda y: (u(y) - here).exp() * f(y))(x)

    return value


def one(x: Any) -> Any:
    """The constant 1."""
    return 1.0


def _positive(log_beta: Tensor) -> Tensor:
    if log_beta.device.type == "cpu" and not bool(log_beta.isfinite().all()):
        raise CapabilityError(
            f"Expected beta > 0 at every state that is asked for, without which there is no "
            f"reversal, got log beta = {log_beta[~log_beta.isfinite()][0].item()}. Ask where the "
            f"law has mass, or bound the output of a network."
        )
    return log_beta


def _summed(functions: list[Function]) -> Function:
    return lambda x: sum((f(x) for f in functions[1:]), functions[0](x))
