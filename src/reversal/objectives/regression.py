r"""Regression on a posterior expectation: every simple loss of the field, on any product.

.. math:: \ell(x_0) = E_t\, E_{q(x_t | x_0)} \sum_{\text{running sites}}
   D\big(\text{target}(x_0, x_t), \text{output}(x_t, t)\big),

with D the divergence of the parametrization. By Fisher's identity the minimizer is the posterior
expectation, so this is denoising score matching, noise or velocity regression, flow matching, score
entropy or cross-entropy, as the parametrization says. Source: Benton et al. (2024), section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from reversal import state
from reversal.clocks import Clock, spread
from reversal.core import Capability, Denoiser, Objective
from reversal.denoisers.network import NetworkDenoiser
from reversal.errors import CapabilityError, ClockError, SpaceError, listed
from reversal.noise import Randomness
from reversal.schedules import LearnedSchedule
from reversal.state import State, Tree
from reversal.weightings import Weighting


@final
class Regression(Objective):
    """The loss of a network denoiser on the clocks of its law.

    Args:
        weights: one number per factor of a product, 1 where left out; 1 keeps a sum of divergences.
        weighting: of the levels of Gaussian noise, in place of the divergence's own; on a product a
            dict of them over its Gaussian factors.

    A known or dropped site carries no loss. A missing entry (``observed`` False) is a dropped site
    whatever the law drew: the network is fed a prior draw there. Cost: one network call.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        weighting: Weighting | Mapping[str, Weighting] | None = None,
    ) -> None:
        self.weights, self.weighting = dict(weights or {}), weighting

    def __call__(
        self,
        denoiser: Denoiser,
        x_0: State,
        cond: Any = None,
        observed: Tree = None,
        x_1: State | None = None,
        generator: Randomness = None,
    ) -> Tensor:
        """Return the losses, ``(B,)``.

        Args:
            denoiser: a ``NetworkDenoiser``.
            x_0: data; any legal value where an entry is missing.
            cond: handed to the network.
            observed: bool, ``sites`` or ``(B, *sites)``, or a dict of those: the entries present.
            x_1: the other ends, for paths with a coupling.
            generator: where randomness comes from.

        Raises:
            CapabilityError: if the denoiser is not a network, or the path does not take ``x_1``, or
                a schedule is learned by a weighting that does not keep the bound.
            ClockError: if entries are missing under a clock law that cannot show it.
        """
        network = _trainable(denoiser)
        path, space = network.process, network.process.space
        space.check_form(x_0, "x_0")
        n, like = state.batch_size(x_0), state.like(x_0)
        present = _complete(space.parts, observed, "observed")
        clock = _withdraw(network.clocks.sample(space, n, like, generator), space, present)
        ends = paired(path, x_0, x_1, cond, generator)
        kernel = path.kernel(x_0, clock.time, *ends)
        x_t = kernel.sample(generator)
        if clock.running is not None:
            fresh = path.prior.sample(n, generator, like)
            x_t = state.map(_stand, space.parts, clock.time, x_0, x_t, fresh)
        outputs = network.outputs(x_t, clock.time, cond)
        kernels = getattr(kernel, "parts", kernel)
        losses = state.map(
            _loss,
            network.parametrization,
            path.parts,
            kernels,
            outputs,
            x_t,
            clock.time,
            _complete(space.parts, self.weighting, "weighting"),
            clock.running,
        )
        losses = state.map(_masked, losses, clock.running)
        if isinstance(losses, Mapping):
            losses = {name: self.weights.get(name, 1.0) * part for name, part in losses.items()}
        return clock.weigh(state.total(losses))


def _trainable(denoiser: Denoiser) -> NetworkDenoiser:
    if not isinstance(denoiser, NetworkDenoiser):
        raise CapabilityError(
            f"Expected a NetworkDenoiser to train, got {type(denoiser).__name__}, which has no "
            f"outputs to regress. Wrap your network: NetworkDenoiser(network, process)."
        )
    return denoiser


def paired(path: Any, x_0: Any, x_1: Any, cond: Any, generator: Randomness) -> tuple[Any, ...]:
    """Return the other ends in a tuple of one, which is empty where no path takes any.

    Raises:
        CapabilityError: if x_1 is given to a path that draws its own noise.
        SpaceError: if a coupling needs x_1 and it is missing or of another shape.
    """
    takes = state.map(lambda part: Capability.ENDPOINTS in part.provides, path.parts)
    if not any(state.leaves(takes)):
        if x_1 is not None:
            raise CapabilityError(
                f"Expected a path with a coupling to take x_1, got {path}, which draws its own "
                f"noise. Leave out x_1, or use an Interpolant."
            )
        return ()
    given = dict.fromkeys(takes) if x_1 is None and isinstance(takes, dict) else x_1
    return (
        state.map(
            lambda part, does, own, other: (
                part.coupling.pair(own, other, cond, generator) if does else None
            ),
            path.parts,
            takes,
            x_0,
            given,
        ),
    )


def _loss(
    how: Any,
    path: Any,
    kernel: Any,
    output: Any,
    x_t: Tensor,
    t: Tensor,
    weighting: Weighting | None,
    running: Tensor | None,
) -> Tensor:
    """The divergence of a factor, or its squared error of the noise with a weight."""
    _check_learned(path, weighting)
    loss = how.loss(path, kernel, output, x_t, t)
    if weighting is None:
        return loss
    if running is not None:  # a weight may be infinite where no loss is
        t = torch.where(running, spread(path.space, t), 0.5)
    scale = how.noise_error(path, x_t, t) ** 2
    return weighting.weigh(scale * loss, path.signal(t, x_t.dtype))


def _check_learned(path: Any, weighting: Weighting | None) -> None:
    """Refuse a loss that a schedule in training would lower by itself, at easy levels of noise."""
    schedule = getattr(path, "schedule", None)
    if not isinstance(schedule, LearnedSchedule) or getattr(weighting, "keeps_bound", False):
        return
    if torch.is_grad_enabled() and any(p.requires_grad for p in schedule.shape_parameters()):
        raise CapabilityError(
            f"Expected a loss whose mean the shape of a learned schedule leaves alone, got "
            f"Regression with weighting={weighting}. Use LeastVariance(Regression("
            f"weighting=LikelihoodWeighting())), or freeze it: schedule.requires_grad_(False)."
        )


def _complete(parts: Any, given: Any, name: str) -> Any:
    """Factors that a dict leaves out have None."""
    if not isinstance(parts, Mapping) or not isinstance(given, Mapping):
        return given
    if set(given) - set(parts):
        raise SpaceError(
            f"Expected `{name}` to name factors among {listed(parts)}, got {listed(given)}. "
            f"Use one of those names."
        )
    return {factor: given.get(factor) for factor in parts}


def _withdraw(clock: Clock, space: Any, observed: Tree) -> Clock:
    """Stand missing entries at 1 and take them out of the loss."""
    if observed is None:
        return clock
    if clock.running is None:
        if all(
            bool(torch.as_tensor(mask).all()) for mask in state.leaves(observed) if mask is not None
        ):
            return clock
        raise ClockError(
            "Expected a clock law with one time per site for data with missing entries, got one "
            "that shares its clock. Use SiteClocks(), or leave out the items with gaps."
        )
    state.map(_refuse_parts, space.parts, clock.time, observed)
    time = state.map(
        lambda part, at, mask: at if mask is None else torch.where(mask, spread(part, at), 1.0),
        space.parts,
        clock.time,
        observed,
    )
    running = state.map(lambda r, mask: r if mask is None else r & mask, clock.running, observed)
    return clock._replace(time=time, running=running)


def _refuse_parts(space: Any, time: Tensor, mask: Any) -> None:
    """Refuse a gap in a part of a factor whose sites share one clock."""
    if mask is None or time.ndim > 1 or not space.sites:
        return
    rows = torch.as_tensor(mask).expand(len(time), *space.sites).reshape(len(time), -1)
    if not bool((rows.all(1) == rows.any(1)).all()):
        raise ClockError(
            f"Expected whole factors to be missing under one clock per factor, got gaps in a part "
            f"of {space}. Use SiteClocks(), or leave out the items with such gaps."
        )


def _stand(space: Any, time: Tensor, x_0: Tensor, x_t: Tensor, fresh: Tensor) -> Tensor:
    """Known sites hold their value bit for bit, dropped ones an independent prior draw."""
    at = state.trail(spread(space, time), space.lift)
    return torch.where(at == 0, x_0, torch.where(at == 1, fresh, x_t))


def _masked(loss: Tensor, running: Tensor | None) -> Tensor:
    return state.sum_sites(loss if running is None else torch.where(running, loss, 0.0))
