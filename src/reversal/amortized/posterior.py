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

import os
from dataclasses import replace
from typing import Any, Final, Self, final

import torch
from torch import Tensor

from reversal.amortized import saving
from reversal.amortized.simulations import Plans, Simulations, looked_at, real
from reversal.core import Sampler
from reversal.data.support import Support
from reversal.denoisers import NetworkDenoiser
from reversal.errors import ConvergenceError, DataError, NotFittedError
from reversal.likelihood import Likelihood, elbo
from reversal.networks import ConditionalGaussian, ConditionalMLP
from reversal.processes import Gaussian
from reversal.questions import check_finite
from reversal.samplers import Multistep
from reversal.spaces import Euclidean
from reversal.training import Plan, arguments, progress

CHUNK: Final = 2**15
"""How many draws are made at once."""
SETTINGS: Final = (
    *("steps", "normal_steps", "batch_size", "hidden_features", "num_blocks", "learning_rate"),
    *("hide", "seed", "show_progress"),
)


@final
class AmortizedPosterior:
    """The law of parameters given evidence, for any evidence that the simulator may give.

    Args:
        support: where the parameters lie, such as ``Box(low, high)``; None for all real vectors.
        steps: the number of training steps of the denoiser; None lets the number of simulations
            say it.
        normal_steps: the number of training steps of the normal law, each a third of the work;
            None for as many.
        batch_size: simulations per step.
        hidden_features: the width of the networks.
        num_blocks: the number of residual blocks of the denoiser.
        learning_rate: the peak of its schedule.
        hide: the share of simulations of which any entries of the evidence are hidden in training,
            so that a part of it may be conditioned on: half is a good share. At 0 only what is NaN
            in the simulations may be NaN in a question.
        seed: where weights, batches and noise come from.
        show_progress: whether training says how far it is, on standard error.

    Attributes:
        denoiser_: the trained ``NetworkDenoiser`` of u, which takes the evidence as ``cond``: what
            samplers and bounds take.
        normal_: the ``ConditionalGaussian`` whose units u is in.
        support_: the map between the real line and the parameters.
        trace_: the steps done, and what was read on the way.
        gaps_: which entries of the evidence may be NaN, bool ``(k,)``.
    """

    def __init__(
        self,
        support: Support | None = None,
        *,
        steps: int | None = None,
        normal_steps: int | None = None,
        batch_size: int = 256,
        hidden_features: int = 64,
        num_blocks: int = 3,
        learning_rate: float = 4e-3,
        hide: float = 0.0,
        seed: int = 0,
        show_progress: bool = True,
    ) -> None:
        self.support, self.steps, self.normal_steps = support, steps, normal_steps
        self.batch_size, self.hidden_features = batch_size, hidden_features
        self.num_blocks, self.learning_rate, self.hide = num_blocks, learning_rate, hide
        self.seed, self.show_progress = seed, show_progress

    def fit(self, theta: Any, evidence: Any) -> Self:
        """Learn from simulations.

        Args:
            theta: parameters drawn from the prior, ``(N, d)``; a tensor or an array.
            evidence: what the simulator made of each, or summaries of it, ``(N, k)``; NaN is a gap,
                and that it is one is evidence too. Of a heavy tail give logarithms.

        Returns:
            Itself; a tenth of the simulations, 2,048 at most, say which weights are kept. One whose
            training is interrupted stays what it was before.

        Raises:
            DataError: if the two do not fit together, are not finite, or leave the support.
        """
        theta, evidence, support = looked_at(theta, evidence, self.support)
        z, plans = support.to_real(theta).float(), self._plans(len(theta))
        gaps = evidence.isnan().any(0) | (plans.hide > 0)
        with torch.random.fork_rng(devices=[]), progress.shown(self.show_progress) as show:
            torch.manual_seed(plans.seed)
            normal, denoiser = self._networks(z.shape[1], evidence.shape[1], bool(gaps.any()))
            trace = Simulations(z, evidence, plans, show).learn(normal, denoiser)
        self.normal_, self.denoiser_, self.trace_ = normal, denoiser, trace
        self.support_, self.gaps_ = support, gaps
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
            evidence: ``(k,)``, or ``(m, k)`` for m posteriors at once; NaN is a gap.
            seed: the same seed gives the same draws.
            steps: the number of steps.
            sampler: ``Multistep()`` by default.

        Returns:
            ``(n, d)``, or ``(n, m, d)``; float64.

        Raises:
            DataError: if the evidence does not have the length that was fitted, is out of reach, or
                has gaps where none was learned.

        Cost: n m steps network calls under the default sampler; evidence is encoded once.
        """
        evidence = real(evidence)
        rows = self._rows(evidence)
        n = arguments.whole("n", n, 0)
        seed = arguments.whole("seed", seed, 0, arguments.MOST_SEED)
        generator = torch.Generator().manual_seed(seed)
        walk = Multistep() if sampler is None else sampler
        network: ConditionalMLP = self.denoiser_.network
        decoder = NetworkDenoiser(network.decode, self.denoiser_.process)
        encoded, (mean, factor) = network.encoder(rows), self.normal_(rows)

        def draw(which: Tensor) -> Tensor:
            cond = encoded[which]
            u = walk.sample(decoder, len(which), steps, cond=cond, generator=generator)
            return mean[which] + (factor[which] @ u[..., None]).squeeze(-1)

        try:
            z = torch.cat([draw(part) for part in torch.arange(len(rows)).repeat(n).split(CHUNK)])
            check_finite(z, walk)
        except ConvergenceError as error:
            raise DataError(
                "Expected evidence near what was simulated, got some so far from it that the "
                "networks come to no number. Compare it with the summaries of the simulations."
            ) from error
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
            evidence: ``(B, k)``, or one ``(k,)`` for all; NaN is a gap.
            num_samples: draws per item.
            seed: the same seed gives the same estimate.

        Raises:
            DataError: if the shapes do not fit, or a parameter is NaN.

        Cost: 2 num_samples network calls.
        """
        theta, evidence = real(theta), real(evidence)
        rows = self._rows(evidence)
        support, d = self.support_, self.normal_.num_features
        if theta.shape[1:] != (d,) or len(rows) not in (1, len(theta)):
            raise DataError(
                f"Expected parameters (B, {d}) and one evidence, or one for each, got "
                f"{tuple(theta.shape)} and {tuple(evidence.shape)}. Repeat the shorter of the two."
            )
        if bool(theta.isnan().any()):
            raise DataError("Expected parameters that are numbers, got NaN. Leave those rows out.")
        inside = support.contains(theta)
        legal = torch.where(inside[:, None], theta.double(), support.from_real(torch.zeros(d)))
        shown = rows.expand(len(theta), -1)
        u, log_det = self.normal_.to_unit(support.to_real(legal).float(), shown)
        generator = torch.Generator().manual_seed(seed)
        found = elbo(self.denoiser_, u, num_samples=num_samples, generator=generator, cond=shown)
        value = found.value - log_det + support.log_slope(legal)
        return replace(found, value=torch.where(inside, value, -torch.inf))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the posterior in the place of an older run: safetensors and JSON.

        A reader sees the older run or this one, whole, at whatever instant the writing is cut off.

        Raises:
            NotFittedError: if there is nothing to save.
            CheckpointError: if the folder cannot be written to.
        """
        parts = {
            "normal": self._fitted().normal_.state_dict(),
            "denoiser": self.denoiser_.network.state_dict(),
        }
        config = {
            "settings": {name: getattr(self, name) for name in SETTINGS},
            "is_support_given": self.support is not None,
            "support": self.support_.to_config(),
            "gaps": self.gaps_.tolist(),
        }
        saving.write(folder, parts, config, self.trace_)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Return the posterior that `save` wrote; the same seed gives the same draws.

        Raises:
            CheckpointError: if it is missing, truncated, newer than this version, or changed.
        """
        parts, config, trace = saving.read(folder)
        try:
            support, gaps = config["support"], torch.tensor(config["gaps"], dtype=torch.bool)
            posterior = cls(support if config["is_support_given"] else None, **config["settings"])
            with torch.random.fork_rng(devices=[]):
                sizes = (support.length, len(gaps), bool(gaps.any()))
                normal, denoiser = posterior._networks(*sizes)
            normal.load_state_dict(parts["normal"])
            denoiser.network.load_state_dict(parts["denoiser"])
        except (DataError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise saving.unreadable(folder, error) from error
        posterior.normal_, posterior.denoiser_ = normal.eval(), denoiser.eval()
        posterior.support_, posterior.gaps_, posterior.trace_ = support, gaps, trace
        return posterior

    def _networks(self, d: int, k: int, gaps: bool) -> tuple[ConditionalGaussian, NetworkDenoiser]:
        """Return both networks, untrained."""
        width = arguments.whole("hidden_features", self.hidden_features, 1)
        depth = arguments.whole("num_blocks", self.num_blocks, 0)
        normal = ConditionalGaussian(d, k, hidden_features=width, gaps=gaps)
        network = ConditionalMLP(d, k, hidden_features=width, num_blocks=depth, gaps=gaps)
        return normal, NetworkDenoiser(network, Gaussian(Euclidean(d)))

    def _plans(self, num: int) -> Plans:
        """Return how the normal law and the denoiser are trained on that many simulations."""
        size = arguments.whole("batch_size", self.batch_size, 1)
        rate = arguments.positive("learning_rate", self.learning_rate)
        steps = usual_steps(num) if self.steps is None else self.steps
        own = steps if self.normal_steps is None else self.normal_steps
        first, second = (
            Plan(steps=count, batch_size=size, learning_rate=rate, patience=0)
            for count in (
                arguments.whole("steps" if self.normal_steps is None else "normal_steps", own, 1),
                arguments.whole("steps", steps, 1),
            )
        )
        hide = arguments.share("hide", self.hide)
        seed = arguments.whole("seed", self.seed, 0, arguments.MOST_SEED)
        return Plans(first, second, hide, seed)

    def _rows(self, evidence: Tensor) -> Tensor:
        """Return evidence as rows that fit the network."""
        length = len(self._fitted().gaps_)
        if evidence.ndim not in (1, 2) or evidence.shape[-1] != length:
            raise DataError(
                f"Expected evidence of length {length}, ({length},) or (m, {length}), got "
                f"{tuple(evidence.shape)}. Give the summaries that were fitted, in their order."
            )
        rows = evidence.reshape(-1, length)
        unknown = (rows.isnan().any(0) & ~self.gaps_).nonzero().flatten().tolist()
        if unknown or bool(rows.isinf().any()):
            raise DataError(
                f"Expected finite evidence, and gaps only where simulations had some, got "
                f"infinities or gaps in entries {unknown}. Fit with `hide=0.5` to condition on any "
                f"part of the evidence."
            )
        return rows

    def _fitted(self) -> Self:
        if not hasattr(self, "denoiser_"):
            raise NotFittedError(
                "Expected a fitted posterior, got one that was never fitted. Call "
                "`posterior.fit(theta, evidence)` first, or `AmortizedPosterior.load(folder)`."
            )
        return self


def usual_steps(num: int) -> int:
    """Return how many steps suit a number of simulations, where none is asked for."""
    return min(8000, max(1000, num // 5))
