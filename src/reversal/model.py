r"""The facade: ``Model().fit(data).sample(n)``, for tables and for arrays on any product.

One network answers every question about the joint law of the columns or factors,

.. math:: p(x_A \mid x_B) \quad \text{for any parts } A, B ,

because it is trained with any part known (clock 0), running, or dropped (clock 1).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Self, final

import torch

from reversal import state
from reversal.amortized import saving
from reversal.answers import drawing, filling, predicting, scoring
from reversal.answers.methods import Bound, Method
from reversal.core import Path, Sampler, Space
from reversal.data.opening import opened, source_from_config
from reversal.data.spilled import encode
from reversal.data.table_file import open_table
from reversal.errors import CheckpointError, NotFittedError, ReversalError
from reversal.likelihood import Likelihood
from reversal.networks import Architecture
from reversal.restrictions import Evidence
from reversal.training import Check, Trace, arguments, card, checkpoint, progress, recipe
from reversal.training.fitting import denoiser_of, fit_denoiser
from reversal.training.logs import from_lines, to_lines
from reversal.training.method import SETTINGS, made_of, method_for
from reversal.training.session import Session, identify


@final
class Model:
    """A generative model of a table or of arrays.

    Args:
        minutes: the time budget of training, by default 1 to 10 by the size of the data. It is
            turned into a number of steps after a short measurement. Small data need less: training
            ends when the held-out loss no longer falls, or after 400 visits to each row (1,000
            steps at least).
        steps: the exact number of steps instead; training then never stops early.
        hidden_features: the width of the network.
        num_blocks: the number of its residual blocks.
        dropout: the share of inner units left out in training; by default 0.1.
        network: another network in the place of the perceptron that these three describe, such as
            ``Transformer(hidden_features=64)``.
        learning_rate: the peak of its schedule.
        seed: where initial weights, batches and noise come from.
        show_progress: whether training says how far it is, on standard error.

    Attributes:
        denoiser_: the trained ``NetworkDenoiser``; what samplers and bounds take.
        process_: how the states are noised.
        source_: the way between the caller's data and states.
        trace_: the steps done, and what was read on the way.
        training_: the size and name of the data, the time budget, how it was trained, and what
            identifies the training.
    """

    def __init__(
        self,
        minutes: float | None = None,
        *,
        steps: int | None = None,
        hidden_features: int = 256,
        num_blocks: int = 4,
        dropout: float | None = None,
        network: Architecture | None = None,
        learning_rate: float = 2e-3,
        seed: int = 0,
        show_progress: bool = True,
    ) -> None:
        self.minutes, self.steps = minutes, steps
        self.hidden_features, self.num_blocks = hidden_features, num_blocks
        self.dropout, self.network, self.learning_rate = dropout, network, learning_rate
        self.seed, self.show_progress = seed, show_progress

    def fit(
        self,
        data: Any,
        space_or_process: Space | Path | None = None,
        *,
        run: str | os.PathLike[str] | None = None,
        resume: bool = False,
        checkpoint_seconds: float = 60.0,
        callbacks: Sequence[Callable[[Check], None]] = (),
        shard: bool = False,
        name: str | None = None,
    ) -> Self:
        """Learn the joint law of a table, or of arrays.

        Args:
            data: a pandas, polars or Arrow frame, or the path of a CSV or Parquet file, which is
                streamed where it takes more than 2^28 bytes; or with a
                space or process, a dict of arrays by factor (one array on a plain space).
            space_or_process: where arrays live, or how they are noised; by default numbers get
                Gaussian noise, codes a mask, angles and rotations heat.
            run: a folder in which the training is kept as it goes; the model is saved in it at the
                end. Ctrl-C and SIGTERM save before they stop it; a crash loses what was done since
                the last checkpoint.
            resume: whether to go on with the training that ``run`` holds, if any, bit for bit on
                the same machine. One that has ended is loaded.
            checkpoint_seconds: the time between two checkpoints.
            callbacks: functions of a ``Check``, called about 40 times in a training.
            shard: whether processes that `torchrun` started share the weights (FSDP2) or have
                copies (DDP).
            name: what the model card calls the data; by default the name of the file.

        Returns:
            The model itself.

        Raises:
            DataError: if the data are none of these, or too few, if an argument of the model is out
                of its range, or if training diverges.
            SpaceError: if they do not fit the space.
            CheckpointError: if the folder cannot be written to, or holds another training.
        """
        session = Session(run, resume, checkpoint_seconds, callbacks, shard)
        settings = self._settings()
        if isinstance(data, str | os.PathLike):
            name, data = name or os.path.basename(data), open_table(data)
        source, process = opened(data, space_or_process)
        encoded = encode(source, data, settings["seed"], run)
        rows = state.batch_size(encoded.present)
        sites = sum(mask[0].numel() for mask in encoded.present.values())
        kinds: dict[str, Any] = {"source": source.to_config()}
        if run is not None:
            kinds["process"] = recipe.process_to_config(process)
        identity = identify(encoded, kinds, settings)
        if run is not None and session.has_ended(identity):
            return self._take(load(run))
        method = method_for(settings, rows, sites, source.whole_factors)
        keeper, method = session.begin(identity, method)
        is_shown = self.show_progress and session.world.is_first
        with torch.random.fork_rng(devices=[]), progress.shown(is_shown) as show:
            torch.manual_seed(settings["seed"])
            denoiser = denoiser_of(process, method.network, method.clocks)
            if is_shown:
                done = keeper and keeper.done
                progress.announce(method.plan, rows, len(source.measure), done)
            trace = fit_denoiser(
                denoiser,
                encoded,
                method,
                settings["seed"],
                show,
                session.callbacks,
                keeper,
                session.world,
            )
        self.denoiser_, self.process_, self.source_, self.trace_ = denoiser, process, source, trace
        facts = {"name": name or "", "rows": rows, "minutes": method.plan.minutes}
        self.training_ = facts | {"identity": identity, "method": method.to_config()}
        session.close(keeper, self.save)
        return self

    def sample(
        self,
        n: int,
        given: Any = None,
        *,
        seed: int = 0,
        steps: int = 100,
        sampler: Sampler | None = None,
        missing: bool = False,
        on_step: Callable[[int, Any], None] | None = None,
        on_evidence: Callable[[Evidence], None] | None = None,
    ) -> Any:
        """Draw n rows of what was fitted.

        Args:
            n: the number of rows.
            given: for a table, columns and their values, ``{"species": "Adelie"}``, or conditions
                ``rv.between(65, 80)``, ``rv.one_of("cook", "smith")``, ``rv.none_of("cook")``; for
                arrays ``{"label": 3}``, ``{"label": n values}`` or ``{"image": (values, known)}``.
            seed: the same seed gives the same rows.
            steps: the number of steps; one network call each under the default sampler.
            sampler: ``Multistep()`` by default.
            missing: whether gaps are written, in each column as often as they were seen.
            on_step: called with (step number, state) after every step, chunk by chunk where n is
                large.
            on_evidence: called with the probability of the conditions that are no equalities, the
                effective sample size of the draws that meet them, and the lift of given codes.

        Values are known from the start: the law is p(the rest | values, conditions). Conditions are
        met in every row; see ``restrictions.sequential`` for what is exact.

        Raises:
            NotFittedError: if the model was not fitted.
            DataError: for unknown columns, categories or shapes in ``given``, and for conditions
                that no value meets, or that the model holds for impossible together.
        """
        self._fitted()
        n = arguments.whole("n", n, 0)
        steps = arguments.whole("steps", steps, 1)
        seed = arguments.whole("seed", seed, 0, arguments.MOST_SEED)
        return drawing.sample(
            self.denoiser_,
            self.source_,
            n,
            given,
            seed,
            steps,
            sampler=sampler,
            missing=missing,
            on_step=on_step,
            on_evidence=on_evidence,
        )

    def probability(self, given: Any, *, seed: int = 0, draws: int = 1000) -> Evidence:
        """Estimate how probable ranges and sets are, given the values that stand beside them.

        ``{"age": rv.between(65, 80), "sex": "F"}`` asks for P(65 <= age <= 80 | sex = F). Exact, up
        to the error of the flow, where one column is restricted; a Monte Carlo estimate elsewhere.

        Args:
            given: columns and their values or conditions.
            seed: the same seed gives the same estimate.
            draws: how many rows of the restricted columns are drawn.
        """
        self._fitted()
        draws = arguments.whole("draws", draws, 2)
        seed = arguments.whole("seed", seed, 0, arguments.MOST_SEED)
        return drawing.probability_of(self.denoiser_, self.source_, given, seed, draws)

    def impute(self, rows: Any, draws: int = 20, *, seed: int = 0, steps: int = 100) -> Any:
        """Fill the gaps of rows with draws from their law given all that is known.

        Args:
            rows: a frame with every column of the fitted one, or arrays; gaps are what is missing.
            draws: how many times each row is filled.
            seed: the same seed gives the same draws.
            steps: the number of steps.

        Returns:
            One frame of draws x rows rows, the first column ``draw`` (``draw_`` where there is such
            a column); known cells are unchanged. For arrays, arrays with a leading dimension of
            draws.
        """
        self._fitted()
        draws = arguments.whole("draws", draws, 1)
        steps = arguments.whole("steps", steps, 1)
        seed = arguments.whole("seed", seed, 0, arguments.MOST_SEED)
        return filling.impute(self.denoiser_, self.source_, rows, draws, seed, steps)

    def predict_proba(self, rows: Any, target: str) -> Any:
        """Return p(target | all other entries) of every row.

        Cost: one network call; four, and their mean, where other entries are rounded numbers.

        Args:
            rows: what was fitted; the target may be left out, and is not looked at.
            target: a column of categories, levels or booleans, or a factor of one categorical site.

        Returns:
            A frame with one column per category, or an array ``(B, K)``.
        """
        self._fitted()
        return predicting.predict_proba(self.denoiser_, self.source_, rows, target)

    def log_prob(
        self, rows: Any, *, num_samples: int = 64, seed: int = 0, method: Method | None = None
    ) -> Likelihood:
        """Return a lower bound on the log-density of every row, in nats and the caller's units.

        A rounded number counts as a probability, by uniform dithering; the measure of each column
        or factor is stated. Gaps are marginalized out. Cost: about 2 num_samples network
        calls, of at least 16 samples and multiples of 8.

        Args:
            rows: what was fitted.
            num_samples: random times per row of the bound.
            seed: the same seed gives the same estimate.
            method: ``rv.Flow()`` for the log-density of a model of numbers by its probability flow,
                ``rv.Flow(given_categories=True)`` for that of the numbers given the categories;
                ``num_samples`` is not read then. The kind of what is returned says which it is.

        Raises:
            CapabilityError: if a flow is asked for what has none.
        """
        self._fitted()
        num_samples = arguments.whole("num_samples", num_samples, 1)
        seed = arguments.whole("seed", seed, 0, arguments.MOST_SEED)
        method = Bound(num_samples) if method is None else method
        return scoring.log_prob(self.denoiser_, self.source_, rows, method, seed)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model, and what is told of it, in the place of an older run.

        ``model.safetensors`` and ``config.json`` are the model; ``space.yaml``, ``log.jsonl`` and a
        model card, ``README.md``, go with them. A reader sees the older run or this one, whole, at
        whatever instant the writing is cut off.

        Raises:
            CheckpointError: if the folder cannot be written to, or the process has no text form.
        """
        trace = self._fitted().trace_
        ended = {"steps": trace.steps, "ended": trace.ended, "best_step": trace.best_step}
        config = {
            "model": self._arguments(),
            "process": recipe.process_to_config(self.process_),
            "source": self.source_.to_config(),
            "training": self.training_ | ended,
        }
        records = {checkpoint.LOG: to_lines(trace.checks)}
        records[checkpoint.SPACE] = self.source_.space_yaml()
        columns = {"columns": self.source_.measure}
        text = card.text(self._settings(), self.training_ | columns, trace)
        checkpoint.write(folder, self.denoiser_.network.state_dict(), config, records, text)

    def _fitted(self) -> Self:
        if not hasattr(self, "denoiser_"):
            raise NotFittedError(
                "Expected a fitted model, got one that was never fitted. "
                "Call `model.fit(data)` first, or `reversal.load(folder)`."
            )
        return self

    def _arguments(self) -> dict[str, Any]:
        return self._settings() | {"show_progress": self.show_progress}

    def _settings(self) -> dict[str, Any]:
        network = None if self.network is None else recipe.network_to_config(self.network)
        given = {name: getattr(self, name) for name in SETTINGS}
        return arguments.checked(given | {"network": network})

    def _take(self, other: Model) -> Self:
        """Become what another model was fitted to."""
        for name in ("denoiser_", "process_", "source_", "trace_", "training_"):
            setattr(self, name, getattr(other, name))
        return self


def load(folder: str | os.PathLike[str]) -> Model:
    """Return the model that ``Model.save`` wrote.

    Raises:
        CheckpointError: if the run is missing, truncated, newer than this version, or changed.
    """
    weights, config, records = checkpoint.read(folder)
    if config.get("kind") == saving.KIND:
        raise CheckpointError(
            f"Expected a run of reversal.Model in {str(folder)!r}, got a posterior. "
            f"Load it with `reversal.AmortizedPosterior.load`."
        )
    try:
        training = config.get("training", {})
        ended = ("steps", "ended", "best_step") if training else ()
        done = {name: training.pop(name) for name in ended}
        trace = Trace(checks=from_lines(records.get(checkpoint.LOG, "")), **done)
        settings = dict(config["model"])
        if settings.get("network"):
            settings["network"] = recipe.network_from_config(settings["network"])
        model = Model(**settings)
        process = recipe.process_from_config(config["process"])
        model.source_ = source_from_config(config["source"], process.space)
        with torch.random.fork_rng(devices=[]):
            whole = model.source_.whole_factors
            denoiser = denoiser_of(process, *made_of(training, model._settings(), whole))
        denoiser.network.load_state_dict(weights)
    except CheckpointError:
        raise
    except (ReversalError, KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"Expected a run that this version reads in {str(folder)!r}, got: {error}. "
            f"Install the version of reversal that wrote it, or fit and save again."
        ) from error
    model.process_, model.denoiser_ = process, denoiser.eval()
    model.trace_, model.training_ = trace, training
    return model
