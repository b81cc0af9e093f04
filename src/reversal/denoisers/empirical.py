r"""The oracle: the exact posterior of a finite data set, under any process with a kernel.

.. math:: w_i \propto \text{weight}_i \; q(x_t | x^{(i)}), \qquad
   E[\,\cdot \mid x_t] = \sum_i w_i\, (\cdot)^{(i)} .

A known site must match an atom, a dropped site is left out of the weights: in a clock per site or
per factor, 0 is known and 1 is dropped. Under a clock shared by all sites every site runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.clocks import AnyClock, spread, tensor
from reversal.core import Denoiser, Estimate, JointEstimate, Kind, Path
from reversal.errors import SpaceError
from reversal.grids import Tick
from reversal.state import State

_IMPOSSIBLE = -1e30


@final
class Empirical(Denoiser):
    """A perfect denoiser that needs no training.

    Args:
        process: any path whose kernel has ``log_prob``; products included.
        atoms: N states of ``process.space``.
        weights: N numbers >= 0, not all 0; equal if None.

    Raises:
        SpaceError: if the atoms lie outside the space or the weights are negative.

    Cost: N kernels per item and call.
    """

    def __init__(self, process: Path, atoms: State, weights: Tensor | None = None) -> None:
        super().__init__()
        process.space.check(atoms, "atoms")
        self.process: Any = process
        self.clocks: Any = AnyClock()
        self.atoms = atoms
        count = state.batch_size(atoms)
        given = torch.ones(count) if weights is None else torch.as_tensor(weights)
        if (
            given.shape != (count,)
            or count == 0
            or not bool((given >= 0).all() & (given.sum() > 0))
        ):
            raise SpaceError(
                f"Expected one weight >= 0 for each of at least one atom, got {count} atoms "
                f"and weights of shape {tuple(given.shape)}. Leave weights=None for equal ones."
            )
        self.log_weights = (given.double() / given.double().sum()).log()
        real = any(part.is_floating_point() for part in state.leaves(atoms))
        shown = state.like(atoms)
        self._like = shown.to(given.dtype) if given.is_floating_point() and not real else shown

    @property
    def like(self) -> Tensor:
        """The atoms' device and real dtype; that of the weights where no factor is real."""
        return self._like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """The posterior expectations, factor by factor."""
        weights = self.weights(x_t, t)
        read = state.map(
            lambda path, x, at, atoms: self._estimate(path, x, at, atoms, weights),
            self.process.parts,
            x_t,
            t,
            self.atoms,
        )
        return JointEstimate(read) if isinstance(read, dict) else read

    def weights(self, x_t: Any, t: Any) -> Tensor:
        """The posterior over the atoms, ``(B, N)``."""
        look = partial(self._log_likelihood, isinstance(t, Mapping))
        logs = state.total(state.map(look, self.process.parts, x_t, t, self.atoms))
        return (logs + self.log_weights.to(logs)).softmax(-1).to(self.like)

    def _log_likelihood(self, apart: bool, path: Any, x_t: Tensor, t: Any, atoms: Tensor) -> Tensor:
        """log q(x_t | atom) over the sites that are not dropped, ``(B, N)``."""
        n, count = len(x_t), len(atoms)
        x, at, a = _pairs(x_t, t, atoms)
        logs = path.kernel(a, at).site_log_prob(x).double().clamp_min(_IMPOSSIBLE)
        if isinstance(t, Tick) and t.pattern is None:
            return state.sum_sites(logs).view(n, count)
        clock = tensor(t, n, state.like(x_t))
        if clock.ndim > 1 or apart:
            site_clock = spread(path.space, clock).repeat_interleave(count, 0)
            match = (x == a)[(...,) + (None,) * (x.ndim == site_clock.ndim)]
            match = match.flatten(site_clock.ndim).all(-1)
            known = torch.where(match, 0.0, _IMPOSSIBLE).to(logs)
            logs = torch.where(site_clock == 0, known, torch.where(site_clock == 1, 0.0, logs))
        return state.sum_sites(logs).view(n, count)

    def _estimate(self, path: Any, x_t: Tensor, t: Any, atoms: Tensor, weights: Tensor) -> Estimate:
        if path.conversion(Kind.POSTERIOR, Kind.SCORE):
            law = _mixture(path.space.num_values, atoms, weights)
            logits = torch.where(law > 0, torch.where(law > 0, law, 1.0).log(), -torch.inf)
            return Estimate(path, x_t, t, Kind.POSTERIOR, logits)
        if path.conversion(Kind.CLEAN, Kind.VELOCITY):
            return Estimate(path, x_t, t, Kind.CLEAN, (weights @ atoms.flatten(1)).view_as(x_t))
        x, at, a = _pairs(x_t, t, atoms)
        scores = path.kernel(a, at).score(x).unflatten(0, (len(x_t), len(atoms)))
        shares = state.trail(weights, scores.ndim - 2)
        if path.space.is_real:
            return Estimate(path, x_t, t, Kind.SCORE, (shares * scores).sum(1))
        return Estimate(path, x_t, t, Kind.SCORE, (shares.log() + scores).logsumexp(1))


def _pairs(x_t: Tensor, t: Any, atoms: Tensor) -> tuple[Tensor, Any, Tensor]:
    """Every state with every atom, as one batch of B N items."""
    count = len(atoms)
    at = t if isinstance(t, Tick) else t.repeat_interleave(count, 0)
    return x_t.repeat_interleave(count, 0), at, atoms.repeat(len(x_t), *[1] * (atoms.ndim - 1))


def _mixture(num_states: int, atoms: Tensor, weights: Tensor) -> Tensor:
    """The law of every site under the weights, ``(B, *sites, K)``."""
    n, sites = len(weights), atoms[0].numel()
    law = weights.new_zeros((n, sites, num_states))
    index = atoms.reshape(len(atoms), sites).T.expand(n, sites, len(atoms))
    law.scatter_add_(-1, index, weights[:, None].expand(n, sites, len(atoms)))
    return law.view(n, *atoms.shape[1:], num_states)
