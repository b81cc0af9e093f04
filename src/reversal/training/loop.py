r"""Stochastic optimization of any loss per item; it knows nothing of what is trained.

.. math:: \theta \leftarrow \mathrm{AdamW}\Big(\theta,\, \eta_k \nabla_\theta \frac1B
   \sum_{i \in \text{batch}} \ell_i(\theta)\Big), \qquad
   \eta_k = \eta \min(1, k / k_0)\, \tfrac12 (1 + \cos \pi k / N) .

What is kept are the averaged weights: those of the least held-out loss, or the last ones where
nothing is held out. The batches are a function of the step, and all other state is in its
snapshot: a run that goes on is the run that was not stopped, bit for bit on the same machine.
Source: Loshchilov and Hutter (2019), Algorithm 2 and eq. (14).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from reversal.errors import DataError
from reversal.training.batches import Batches
from reversal.training.distributed import Alone, World
from reversal.training.ema import MovingAverage
from reversal.training.keeping import Keeper
from reversal.training.logs import Check, to_lines
from reversal.training.snapshot import restore, snapshot

MEASURED = (5, 25)
"""The steps whose mean duration turns a time budget into a number of steps."""
LONGEST = 10.0
"""How many seconds are measured at most."""
LATE = 2.0
"""How many times its budget a run takes before it ends where it is."""
LEAST_STEPS = 1000


class Progress(NamedTuple):
    """What training has come to.

    Args:
        step: steps done.
        steps: steps to do; None while the rate is being measured.
        loss: a running mean of the training loss.
        held_out: the latest held-out loss of the averaged weights, or NaN.
        rate: steps per second.
        stderr: the standard error of the held-out loss over its items, or NaN.
    """

    step: int
    steps: int | None
    loss: float
    held_out: float
    rate: float
    stderr: float = math.nan

    @property
    def seconds_left(self) -> float:
        """How long the remaining steps take at this rate."""
        return math.nan if self.steps is None else (self.steps - self.step) / self.rate


@final
@dataclass(frozen=True)
class Plan:
    """How long and how to train; steps or minutes have to be given.

    Args:
        steps: the number of steps, exact where patience is 0; it wins over ``minutes``.
        minutes: a time budget, turned into steps after a short measurement.
        batch_size: items per step.
        learning_rate: the peak of its schedule.
        weight_decay: decoupled, on matrices alone.
        clip: the greatest norm of a gradient.
        checks: how many times the held-out loss is read.
        patience: how many checks without a new least loss end training; 0 for none.
        visits: how often an item is seen at most, beyond 1000 steps, where ``steps`` is not given:
            a bound on how much of an item can be memorized, whatever the time.
        average_decay: the share of the averaged weights that each step keeps, in the long run.
    """

    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    checks: int = 40
    patience: int = 16
    visits: int = 400
    average_decay: float = 0.999

    def __post_init__(self) -> None:
        for name in ("steps", "minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DataError(f"Expected {name} > 0, got {value}. Give a positive budget.")
        if self.steps is None and self.minutes is None:
            raise DataError("Expected steps or minutes of training, got neither. Give one of them.")

    def most_steps(self, num_items: int) -> int:
        """The number of steps after which every item was seen ``visits`` times."""
        return max(LEAST_STEPS, self.visits * num_items // self.batch_size)

    def rate_at(self, step: int, steps: int | None) -> float:
        """The learning rate: linear warm-up, then a cosine down to 0."""
        warm = 100 if steps is None else max(1, min(100, steps // 10))
        done = 0.0 if steps is None else step / steps
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.learning_rate * min(1.0, (step + 1) / warm) * fall


@final
@dataclass
class Trace:
    """What training did: steps done, why it ended, what was read on the way, the step kept."""

    steps: int = 0
    ended: str = ""
    checks: list[Check] = field(default_factory=list)
    best_step: int = 0

    @property
    def held_out(self) -> list[tuple[int, float]]:
        """The held-out losses by step."""
        return [(at.step, at.held_out) for at in self.checks]


def train(
    module: nn.Module,
    loss: Callable[[Tensor], Tensor],
    num_items: int,
    plan: Plan,
    generator: torch.Generator,
    validate: Callable[[], Tensor] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    callbacks: Sequence[Callable[[Check], None]] = (),
    keeper: Keeper | None = None,
    world: World | None = None,
) -> Trace:
    """Train a module in place; it ends with the best averaged weights, in evaluation mode.

    Args:
        module: what holds the parameters.
        loss: indices ``(B,)`` of training items to losses ``(B,)``.
        num_items: the number of training items.
        plan: budget and optimizer.
        generator: the order of the items; where ``loss`` draws from it too, or from torch's own
            generator, a resumed run goes on with the same draws.
        validate: the held-out losses of the module as it is, one per item; it must not depend on
            global randomness.
        on_progress: called after every step.
        callbacks: called at every check, about 40 times.
        keeper: saves the run as it goes, and has what it goes on from.
        world: the processes that train together; ``loss`` is asked for the items of this one, with
            randomness that is its share.

    Raises:
        DataError: if training diverged: no held-out loss is finite, or a weight is not.
        KeyboardInterrupt: if the keeper was asked to stop.

    Cost: one loss and its gradient per step.
    """
    world = Alone() if world is None else world
    mean_loss = world.wrapped(module, loss)
    run = Run(module, plan, num_items, generator, validate, callbacks, world)
    with nullcontext() if keeper is None else keeper:
        if keeper is not None:
            run.callbacks = (*callbacks, lambda _: keeper.log(to_lines(run.trace.checks)))
            if keeper.saved is not None:
                restore(run, keeper.saved)
        while not run.is_over():
            run.step(mean_loss(run.batch()))
            if on_progress is not None:
                on_progress(run.progress())
            if keeper is not None:
                state = partial(snapshot, run) if run.steps else None
                keeper.after_step(run.trace.steps, state)
        try:
            return run.finish()
        except DataError:
            if keeper is not None:
                keeper.clear()
            raise


class Run:
    """The state of one training run."""

    def __init__(
        self,
        module: nn.Module,
        plan: Plan,
        num_items: int,
        generator: torch.Generator,
        validate: Callable[[], Tensor] | None,
        callbacks: Sequence[Callable[[Check], None]],
        world: World,
    ) -> None:
        self.module, self.plan, self.validate = module.train(), plan, validate
        self.generator, self.callbacks, self.world = generator, tuple(callbacks), world
        self.batches = Batches(num_items, plan.batch_size, generator)
        self.average = MovingAverage(module, plan.average_decay)
        self.optimizer = _optimizer(module, plan)
        self.trace, self.steps = Trace(), plan.steps
        self.most = plan.most_steps(num_items)
        self.best, self.least, self.stale = self.average.snapshot(), math.inf, 0
        self.loss = self.latest = self.stderr = math.nan
        self.sitting, self.before, self.start = 0, 0.0, time.monotonic()
        self.marked, self.is_late = self.start, False

    @property
    def seconds(self) -> float:
        """How long the run has taken, in all its sittings."""
        return self.before + time.monotonic() - self.start

    def batch(self) -> Tensor:
        """Return the items of the next step."""
        return self.batches.at(self.trace.steps)

    def step(self, loss: Tensor) -> None:
        """Take one step down the gradient."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate_at(self.trace.steps, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.average.parameters, self.plan.clip, foreach=True)
        self.optimizer.step()
        self.average.update()
        self.trace.steps += 1
        value, late = self.world.mean(float(loss.detach()), self._late())
        self.is_late = late > 0
        self.loss = value if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * value
        self._measure()
        if self._is_due():
            self._check()

    def progress(self) -> Progress:
        """Return what to show."""
        done = self.trace.steps
        return Progress(done, self.steps, self.loss, self.latest, self._rate(), self.stderr)

    def is_over(self) -> bool:
        """Whether the steps are done, patience is lost, or the time is far past its budget."""
        reasons = {
            "the held-out loss stopped falling": 0 < self.plan.patience <= self.stale,
            "all steps were done": self.steps is not None and self.trace.steps >= self.steps,
            "the time was up": self.is_late,
        }
        self.trace.ended = next((reason for reason, holds in reasons.items() if holds), "")
        return bool(self.trace.ended)

    def finish(self) -> Trace:
        """Install the best averaged weights.

        Raises:
            DataError: if training came to no number.
        """
        if self.validate is None or not self.trace.checks:
            self.trace.best_step, self.best = self.trace.steps, self.average.snapshot()
        checks = [] if self.validate is None else [value for _, value in self.trace.held_out]
        if checks and not any(map(math.isfinite, checks)):
            raise DataError(
                f"Expected a held-out loss that is a number, got {checks[-1]} at all "
                f"{len(checks)} checks. Lower learning_rate, now {self.plan.learning_rate:g}."
            )
        if not all(bool(part.isfinite().all()) for part in self.best):
            raise DataError(
                f"Expected weights that are numbers, got NaN after {self.trace.steps} steps. "
                f"Lower learning_rate, now {self.plan.learning_rate:g}."
            )
        self.world.install(self.module, self.average.named(self.best))
        self.module.eval()
        return self.trace

    def _late(self) -> float:
        """Whether the time is far past its budget, on the clock of the first process."""
        if self.plan.steps is not None or self.plan.minutes is None or not self.world.is_first:
            return 0.0
        return float(self.seconds > LATE * 60 * self.plan.minutes + 1)

    def _rate(self) -> float:
        elapsed = max(time.monotonic() - self.start, 1e-9)
        return (self.trace.steps - self.sitting) / elapsed

    def _measure(self) -> None:
        """Turn the time budget into a number of steps."""
        first, last = MEASURED
        done, now = self.trace.steps, time.monotonic()
        if done == first:
            self.marked = now
        is_long = done > first and now - self.marked > LONGEST
        if self.steps is None and self._first(done == last or is_long):
            seconds = max((now - self.marked) / (done - first), 1e-6)
            budget = 60 * (self.plan.minutes or 0) - self.seconds
            steps = min(self.most, done + max(1, int(budget / (1.03 * seconds))))
            self.steps = self._first(steps)

    def _first(self, number: int) -> int:
        """Return what the first process says."""
        (mean,) = self.world.mean(float(number) if self.world.is_first else 0.0)
        return round(mean * self.world.size)

    def _is_due(self) -> bool:
        if self.steps is None:
            return False
        every = max(25, self.steps // self.plan.checks)
        return self.trace.steps % every == 0 or self.trace.steps == self.steps

    def _check(self) -> None:
        """Read the held-out loss of the averaged weights, and keep them if it is the least."""
        if self.validate is not None:
            with self.average.applied(), self.world.gathered(), torch.no_grad():
                self.module.eval()
                losses = self.validate().double()
                self.module.train()
            self.latest, self.stderr = float(losses.mean()), standard_error(losses)
            self.stale += 1
            if self.latest < self.least:
                self.least, self.stale, self.best = self.latest, 0, self.average.snapshot()
                self.trace.best_step = self.trace.steps
        rate = self.optimizer.param_groups[0]["lr"]
        at = (self.trace.steps, self.seconds, self.loss, self.latest, self.stderr)
        self.trace.checks.append(check := Check(*at, rate, self._rate()))
        for callback in self.callbacks:
            callback(check)


def standard_error(losses: Tensor) -> float:
    """Return the standard error of a mean; NaN for fewer than two items."""
    n = len(losses)
    return float(losses.std() / n**0.5) if n > 1 else math.nan


def _optimizer(module: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """AdamW with decay on matrices, none on biases, gains and embeddings of one row per code."""
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=True)
