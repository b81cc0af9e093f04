r"""Amortized inference: the posterior of every evidence at once, learned from simulations alone.

Pairs :math:`(\theta, \xi)` are drawn from the prior and the simulator, only :math:`\theta` is
noised, and one network learns the reversal given :math:`\xi`. The loss is the mean over
:math:`\xi` of the loss of a denoising Markov model of :math:`p(\theta | \xi)`,

.. math:: E_{\xi}\, E_{\theta | \xi}\, E_t\, E_{q(x_t | \theta)}
   D\big(\text{target}(\theta, x_t), \beta(x_t, \xi, t)\big),

so its minimizer reverses the noise for each :math:`\xi`, and the reversal at an observed one draws
from the posterior. No likelihood is evaluated.

What is noised is :math:`u = L(\xi)^{-1} (T(\theta) - m(\xi))`, parameters on the real line in the
units of a normal law given the evidence, learned first. For each :math:`\xi` that is one to one,
whatever m and L are, so it changes nothing but the task: a posterior a hundred times narrower than
the prior has unit variance. Source: Benton et al. (2024), on conditional simulation; learned units
of noise: Karras et al. (2022), whose input scaling is carried to each evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from reversal.core import Sampler
from reversal.data.support import Line, Support
from reversal.denoisers import NetworkDenoiser
from reversal.errors import DataError, NotFittedError
from reversal.likelihood import Likelihood, elbo
from reversal.networks import ConditionalGaussian, ConditionalMLP
from reversal.objectives import Regression
from reversal.processes import Gaussian
from reversal.samplers import Multistep
from reversal.spaces import Euclidean
from reversal.training import Plan, Trace, arguments, progress, train

CHUNK = 2**15
"""How many draws are made at once."""
MOST_HELD_OUT = 2048


@final
class AmortizedPosterior:
    """The law of parameters given evidence, for any evidence that the simulator may give.

    Args:
        support: where the parameters lie, such as ``Box(low, high)``; None for all real vectors.
        steps: the number of training steps of the denoiser.
        normal_steps: the number of training steps of the normal law, each a third of the work;
            None for as many.
        batch_size: simulations per step.
        hidden_features: the width of the networks.
        num_blocks: the number of residual blocks of the denoiser.
        learning_rate: the peak of its schedule.
        seed: where weights, batches and noise come from.
        show_progress: whether training says how far it is, on standard error.

    Attributes:
        denoiser_: the trained ``NetworkDenoiser`` of u, which takes the evidence as ``cond``: what
            samplers and bounds take.
        normal_: the ``ConditionalGaussian`` whose units u is in.
        support_: the map between the real line and the parameters.
        trace_: the steps done, and what was read on the way.
    """

    def __init__(
        self,
        support: Support | None = None,
        *,
        steps: int = 4000,
        normal_steps: int | None = None,
        batch_size: int = 256,
        hidden_features: int = 128,
        num_blocks: int = 3,
        learning_rate: float = 4e-3,
        seed: int = 0,
        show_progress: bool = True,
    ) -> None:
        self.support, self.steps, self.normal_steps = support, steps, normal_steps
        self.batch_size, self.hidden_features = batch_size, hidden_features
        self.num_blocks, self.learning_rate = num_blocks, learning_rate
        self.seed, self.show_progress = seed, show_progress

    def fit(self, theta: Any, evidence: Any) -> Self:
        """Learn from simulations.

        Args:
            theta: parameters drawn from the prior, ``(N, d)``; a tensor or an array.
            evidence: what the simulator made of each, or summaries of it, ``(N, k)``, without gaps;
                of a heavy tail give logarithms.

        Returns:
            Itself; a tenth of the simulations, 2,048 at most, say which weights are kept.

        Raises:
            DataError: if the two do not fit together, are not finite, or leave the support.
        """
        theta, evidence = _tensor(theta), _tensor(evidence)
        support = self._checked(theta, evidence)
        z, shown = support.to_real(theta).float(), evidence.float()
        with torch.random.fork_rng(devices=[]), progress.shown(self.show_progress) as show:
            torch.manual_seed(self.seed)
            normal, denoiser = self._networks(z, shown)
            simulations = _Simulations(z, shown, self._plans(), self.seed, show)
            trace = simulations.learn(normal, denoiser)
        self.normal_, self.denoiser_, self.trace_ = normal, denoiser, trace
        self.support_ = support
        return self

    @torch.no_grad()
    def sample(
        self,
        n: int,
        evidence: Any,
        *,
        seed: int = 0,
        steps: int = 50,
        sampler: Sampler | None = None,
    ) -> Tensor:
        """Draw parameters from their posterior, inside the support.

        Args:
            n: the number of draws for each evidence.
            evidence: ``(k,)``, or ``(m, k)`` for m posteriors at once.
            seed: the same seed gives the same draws.
            steps: the number of steps.
            sampler: ``Multistep()`` by default.

        Returns:
            ``(n, d)``, or ``(n, m, d)``; float64.

        Raises:
            DataError: if the evidence does not have the length that was fitted, or is out of reach.

        Cost: n m steps network calls under the default sampler.
        """
        evidence = _tensor(evidence)
        rows = self._rows(evidence)
        n = arguments.whole("n", n, 0)
        generator = torch.Generator().manual_seed(seed)
        walk = Multistep() if sampler is None else sampler

        def draw(cond: Tensor) -> Tensor:
            u = walk.sample(self.denoiser_, len(cond), steps, cond=cond, generator=generator)
            return self.normal_.from_unit(u, cond)

        z = torch.cat([draw(part) for part in rows.float().repeat(n, 1).split(CHUNK)])
        if not bool(z.isfinite().all()):
            raise DataError(
                "Expected evidence near what was simulated, got some so far from it that the "
                "networks come to no number. Compare it with the summaries of the simulations."
            )
        d = self.normal_.num_features
        return self.support_.from_real(z.reshape(n, *evidence.shape[:-1], d))

    @torch.no_grad()
    def log_prob(
        self, theta: Any, evidence: Any, *, num_samples: int = 64, seed: int = 0
    ) -> Likelihood:
        """Return a lower bound on the log-density of the posterior, in nats.

        The density is with respect to Lebesgue measure on the parameters as they were given; it is
        zero outside the support.

        Args:
            theta: ``(B, d)``.
            evidence: ``(B, k)``, or one ``(k,)`` for all.
            num_samples: draws per item.
            seed: the same seed gives the same estimate.

        Raises:
            DataError: if the shapes do not fit.

        Cost: 2 num_samples network calls.
        """
        theta, evidence = _tensor(theta), _tensor(evidence)
        rows = self._rows(evidence)
        support, d = self.support_, self.normal_.num_features
        if theta.shape[1:] != (d,) or len(rows) not in (1, len(theta)):
            raise DataError(
                f"Expected parameters (B, {d}) and one evidence, or one for each, got "
                f"{tuple(theta.shape)} and {tuple(evidence.shape)}. Repeat the shorter of the two."
            )
        inside = support.contains(theta)
        legal = torch.where(inside[:, None], theta.double(), support.from_real(torch.zeros(d)))
        shown = rows.float().expand(len(theta), -1)
        u, log_det = self.normal_.to_unit(support.to_real(legal).float(), shown)
        generator = torch.Generator().manual_seed(seed)
        found = elbo(self.denoiser_, u, num_samples=num_samples, generator=generator, cond=shown)
        value = found.value - log_det + support.log_slope(legal)
        return replace(found, value=torch.where(inside, value, -torch.inf))

    def _networks(self, z: Tensor, evidence: Tensor) -> tuple[ConditionalGaussian, NetworkDenoiser]:
        """Return both networks, untrained, in the units of the evidence."""
        d, k = z.shape[1], evidence.shape[1]
        width = arguments.whole("hidden_features", self.hidden_features, 1)
        depth = arguments.whole("num_blocks", self.num_blocks, 0)
        normal = ConditionalGaussian(d, k, hidden_features=width)
        network = ConditionalMLP(d, k, hidden_features=width, num_blocks=depth)
        for part in (normal, network):
            part.encoder.whitening.take(evidence)
        return normal, NetworkDenoiser(network, Gaussian(Euclidean(d)))

    def _plans(self) -> tuple[Plan, Plan]:
        """Return how the normal law and the denoiser are trained."""
        steps = arguments.whole("steps", self.steps, 1)
        own = steps if self.normal_steps is None else self.normal_steps
        size = arguments.whole("batch_size", self.batch_size, 1)
        rate = arguments.positive("learning_rate", self.learning_rate)
        counts = (arguments.whole("normal_steps", own, 1), steps)
        first, second = (
            Plan(steps=count, batch_size=size, learning_rate=rate, patience=0) for count in counts
        )
        return first, second

    def _checked(self, theta: Tensor, evidence: Tensor) -> Support:
        fits = theta.ndim == evidence.ndim == 2 and len(theta) == len(evidence) > 1
        fits = fits and theta.shape[1] > 0 and evidence.shape[1] > 0
        if not fits or not bool(theta.isfinite().all() & evidence.isfinite().all()):
            raise DataError(
                f"Expected finite parameters (N, d) and evidence (N, k) of N > 1 simulations, got "
                f"{tuple(theta.shape)} and {tuple(evidence.shape)}. Leave out simulations with "
                f"gaps, or learn the joint law with reversal.Model, which takes them."
            )
        support = Line.of(theta) if self.support is None else self.support
        if support.length != theta.shape[1]:
            raise DataError(
                f"Expected {support.length} parameters, as the support has, got "
                f"{theta.shape[1]}. Give the support one entry per parameter."
            )
        outside = int((~support.contains(theta)).sum())
        if outside:
            raise DataError(
                f"Expected parameters inside the support, got {outside} rows of {len(theta)} that "
                f"are not. Give the support of the prior that they were drawn from."
            )
        return support

    def _rows(self, evidence: Tensor) -> Tensor:
        """Return evidence as rows that fit the network."""
        length = len(self._fitted().normal_.encoder.whitening.center)
        if evidence.ndim not in (1, 2) or evidence.shape[-1] != length:
            raise DataError(
                f"Expected evidence of length {length}, ({length},) or (m, {length}), got "
                f"{tuple(evidence.shape)}. Give the summaries that were fitted, in their order."
            )
        if not bool(evidence.isfinite().all()):
            raise DataError(
                "Expected finite evidence, got gaps or infinities. To leave entries out, learn the "
                "joint law with reversal.Model."
            )
        return evidence.reshape(-1, length)

    def _fitted(self) -> Self:
        if not hasattr(self, "denoiser_"):
            raise NotFittedError(
                "Expected a fitted posterior, got one that was never fitted. "
                "Call `posterior.fit(theta, evidence)` first."
            )
        return self


@final
class _Simulations:
    """Pairs to learn from: some say which weights are kept, half of the others serve a network.

    What a normal law leaves of rows that it has learned from is too small: a denoiser of it would
    be too sure. So each network learns from rows that the other has not seen.
    """

    def __init__(
        self,
        z: Tensor,
        evidence: Tensor,
        plans: tuple[Plan, Plan],
        seed: int,
        show: progress.Show | None,
    ) -> None:
        self.z, self.evidence, self.plans, self.seed, self.show = z, evidence, plans, seed, show
        self.generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(z), generator=self.generator)
        self.held, others = order.tensor_split([min(len(z) // 10, MOST_HELD_OUT)])
        self.halves = others.tensor_split(2)

    def learn(self, normal: ConditionalGaussian, denoiser: NetworkDenoiser) -> Trace:
        """Train the normal law, then the denoiser of what it leaves."""
        first, second = self.halves
        self._train(
            normal,
            first,
            self.plans[0],
            lambda rows, _: -normal.log_prob(self.z[rows], self.evidence[rows]),
        )
        with torch.no_grad():
            parts = zip(self.z.split(CHUNK), self.evidence.split(CHUNK), strict=True)
            u = torch.cat([normal.to_unit(*part)[0] for part in parts])
        objective = Regression()
        return self._train(
            denoiser,
            second,
            self.plans[1],
            lambda rows, source: objective(
                denoiser, u[rows], cond=self.evidence[rows], generator=source
            ),
        )

    def _train(
        self,
        module: nn.Module,
        rows: Tensor,
        plan: Plan,
        loss: Callable[[Tensor, torch.Generator], Tensor],
    ) -> Trace:
        """Train in place; ``loss`` takes some of the rows and a source of noise."""
        return train(
            module,
            lambda index: loss(rows[index], self.generator),
            len(rows),
            plan,
            self.generator,
            (lambda: loss(self.held, torch.Generator().manual_seed(self.seed + 1)))
            if len(self.held)
            else None,
            on_progress=self.show,
        )


def _tensor(values: Any) -> Tensor:
    """Return what a caller gave as a tensor."""
    return values if isinstance(values, Tensor) else torch.as_tensor(values)
