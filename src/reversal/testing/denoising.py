r"""Identities of estimates: Fisher's, for every kind, and the directed table of conversions.

.. math:: E[\,\text{conditional quantity} \mid x_t = x\,] = \sum_i p(i | x)\, (\cdot)^{(i)},
   \qquad p(i | x) \propto w_i\, q(x | x^{(i)}).
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from reversal import state
from reversal.core import Capability, Kind
from reversal.errors import CapabilityError
from reversal.testing.comparison import require, require_close
from reversal.testing.stencils import Around, first
from reversal.testing.trial import WEIGHTS, Trial, paired

_LOGITS = (Kind.POSTERIOR, Kind.CAVITY)


def fisher_identity(trial: Trial) -> None:
    """The oracle's score is the gradient of log q_t, or its log-ratios where there is a rate."""
    estimate = trial.estimate(trial.x)
    for name in trial.names:
        path = state.take(trial.process.parts, name)
        score = state.take(estimate, name).score
        check = _gradient if path.space.is_real else _ratios
        check(trial, name, path, score)


def _gradient(trial: Trial, name: str, path: Any, score: Tensor) -> None:
    moves = trial.moves(name)
    gradient = first(trial.log_q_at(moves), moves.step).T
    require_close(
        "Fisher's identity: E[conditional score] = grad log q_t",
        score.reshape(gradient.shape), gradient, of=path, t=trial.t, size=gradient.abs(),
    )  # fmt: skip


def _ratios(trial: Trial, name: str, path: Any, score: Tensor) -> None:
    near = trial.neighbors(name)
    ratio = (trial.log_q_at(near) - trial.log_q(trial.x)).exp()
    asked = near.differs & (_rates_back(trial, near, name, path) > 0)
    got = near.out(score).exp()
    require_close(
        "Fisher's identity: E[conditional ratio] = q_t(y) / q_t(x)",
        torch.where(asked, got, 0.0), torch.where(asked, ratio, 0.0),
        of=path, t=trial.t, size=torch.where(asked, ratio, 0.0),
    )  # fmt: skip


def _rates_back(trial: Trial, near: Around, name: str, path: Any) -> Tensor:
    """The rates y -> x; a chain, which has none, is asked for every pair."""
    if Capability.GENERATOR not in path.provides:
        return torch.ones_like(near.differs, dtype=torch.float64)
    points = state.take(near.points, name)
    return near.returning(path.forward(points, trial.clock(points)).rates)


def expectations(trial: Trial) -> None:
    """Every kind that the estimate reaches is the posterior expectation of its target."""
    estimate = trial.estimate(trial.x)
    logs = trial.log_joint(trial.x)
    posterior = (logs - logs.logsumexp(1, keepdim=True)).exp()
    for name in trial.names:
        path, own = state.take(trial.process.parts, name), state.take(estimate, name)
        if not path.space.is_real:
            _posteriors(trial, name, path, own, posterior)
            continue
        for kind in reached(own):
            expected = _expected(trial, name, path, kind, posterior)
            require_close(
                f"{kind} = E[{kind} | x_t]",
                own.read(kind), expected, of=path, t=trial.t, size=expected.abs(),
            )  # fmt: skip


def _expected(trial: Trial, name: str, path: Any, kind: Kind, posterior: Tensor) -> Tensor:
    x, atoms = paired(state.take(trial.x, name), state.take(trial.atoms, name))
    target = path.kernel(atoms, trial.clock(x)).target(kind, x)
    wide = target.reshape(-1, len(WEIGHTS), *target.shape[1:])
    return (wide * posterior[(...,) + (None,) * (wide.ndim - 2)]).sum(1)


def _posteriors(trial: Trial, name: str, path: Any, own: Any, posterior: Tensor) -> None:
    atoms, count = state.take(trial.atoms, name), path.space.num_values
    one_hot = torch.nn.functional.one_hot(atoms, count).double()
    law = torch.tensordot(posterior, one_hot, 1)
    require_close("posterior = p(x_0 | x_t)", own.posterior.softmax(-1), law, of=path, t=trial.t)
    if Kind.CAVITY not in reached(own):
        return
    x, wide = paired(state.take(trial.x, name), atoms)
    near = (
        path.kernel(wide, trial.clock(x)).site_log_prob(x).reshape(len(posterior), len(atoms), -1)
    )
    without = (trial.log_joint(trial.x)[..., None] - near).softmax(1)
    cavity = torch.einsum("bas,ask->bsk", without, one_hot.reshape(len(atoms), -1, count))
    require_close(
        "cavity = p(x_0^d | the other coordinates)",
        own.cavity.softmax(-1).reshape(cavity.shape), cavity, of=path, t=trial.t,
    )  # fmt: skip


def conversions(trial: Trial) -> None:
    """Inside the directed table conversions invert and compose; outside they are refused."""
    estimate = trial.estimate(trial.x)
    for name in trial.names:
        path, own = state.take(trial.process.parts, name), state.take(estimate, name)
        for source in reached(own):
            _refusals(path, own.to(source))
        for source, target in permutations(reached(own), 2):
            there = path.conversion(source, target)
            if there is None:
                continue
            value = own.to(source).to(target).read(target)
            _same(path, trial, f"{source} -> {target}", value, own.read(target), target)
            if path.conversion(target, source):
                back = own.to(source).to(target).read(source)
                _same(
                    path, trial, f"{source} -> {target} -> {source}", back, own.read(source), source
                )


def _refusals(path: Any, estimate: Any) -> None:
    for kind in Kind:
        if kind is estimate.kind or path.conversion(estimate.kind, kind):
            continue
        refused = False
        try:
            estimate.to(kind)
        except CapabilityError:
            refused = True
        require(
            refused,
            f"the directed table fails for {path}: it has no conversion from {estimate.kind} to "
            f"{kind}, yet the estimate converts instead of raising CapabilityError.",
        )


def _same(path: Any, trial: Trial, what: str, got: Tensor, expected: Tensor, kind: Kind) -> None:
    if kind in _LOGITS:
        got, expected = got.softmax(-1), expected.softmax(-1)
    elif not path.space.is_real:
        got, expected = got.exp(), expected.exp()
    require_close(
        f"the conversion {what}", got, expected, of=path, t=trial.t,
        size=expected.abs().nan_to_num(posinf=0.0),
    )  # fmt: skip


def reached(estimate: Any) -> list[Kind]:
    """The kinds that an estimate reads, its own included."""
    kind, path = estimate.kind, estimate.path
    return [other for other in Kind if other is kind or path.conversion(kind, other)]
