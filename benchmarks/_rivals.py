"""Makers of synthetic tables, ours and others', behind one interface: fit within a time, draw.

Whoever has no budget of its own is given one: a probe on few epochs or rows is timed, and the
epochs or the rows are chosen so that the whole fit takes about as long as it may.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, final

import numpy as np
import pandas as pd

import reversal as rv
from benchmarks._tables import shuffled

LEVELS = 50
"""Noise levels of ForestDiffusion, by its default: one set of trees for each."""
MOST_ROWS = 1_000_000
"""Of a probe."""


def affordable(fit: Callable[[int, int], object], seconds: float) -> int:
    """Return to how many noised rows boosted trees can be fitted in that processor time.

    Args:
        fit: fits to this many noised rows at this many noise levels.
        seconds: of a fit at `LEVELS` of them.

    Probes at a tenth of the levels grow by four until one would take half of the time; the line of
    the last two is followed.
    """
    levels, before, rows = LEVELS // 10, (0, 0.0), 1_000
    while True:
        start = time.process_time()
        fit(rows, levels)
        took = (time.process_time() - start) * LEVELS / levels
        if took > seconds / 2 or rows >= MOST_ROWS:
            slope = max(took - before[1], 1e-3) / (rows - before[0])
            return int(max(rows + (seconds - took) / slope, 1_000))
        before, rows = (rows, took), 4 * rows


class Maker(ABC):
    """What learns a table and draws rows."""

    name: str
    note: str = ""

    @abstractmethod
    def fit(self, table: pd.DataFrame, seconds: float, seed: int) -> None:
        """Learn a table in about that many seconds of processor time."""

    @abstractmethod
    def draw(self, n: int, seed: int) -> pd.DataFrame:
        """Return n new rows with the dtypes of the table."""

    def predict(self, rows: pd.DataFrame, label: str) -> pd.DataFrame | None:
        """Return the chances of a label given the rest of each row, where it can be asked."""
        return None


@final
class Reversal(Maker):
    """`Model` with default settings."""

    name = "reversal"

    def fit(self, table: pd.DataFrame, seconds: float, seed: int) -> None:
        self.model = rv.Model(seconds / 60, seed=seed, show_progress=False).fit(table)
        self.note = f"{self.model.trace_.steps:,} steps"

    def draw(self, n: int, seed: int) -> pd.DataFrame:
        return self.model.sample(n, seed=seed)

    def predict(self, rows: pd.DataFrame, label: str) -> pd.DataFrame | None:
        return self.model.predict_proba(rows, label)


@final
class Shuffled(Maker):
    """The simple baseline: every column drawn on its own."""

    name = "shuffled columns"

    def fit(self, table: pd.DataFrame, seconds: float, seed: int) -> None:
        self.table = table

    def draw(self, n: int, seed: int) -> pd.DataFrame:
        return shuffled(self.table, n, seed)


class _Gan(Maker):
    """CTGAN and TVAE of the package ctgan, with its defaults but for the number of epochs."""

    most = 300

    @abstractmethod
    def make(self, epochs: int) -> Any:
        """Return an untrained model."""

    @final
    def fit(self, table: pd.DataFrame, seconds: float, seed: int) -> None:
        import torch

        discrete = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
        filled = table.fillna(table.select_dtypes("number").median())
        self.types = table.dtypes.to_dict()
        torch.manual_seed(seed)
        start = time.process_time()
        self._train(filled, discrete, 1)
        first = time.process_time() - start
        start = time.process_time()
        self._train(filled, discrete, 3)
        epoch = max((time.process_time() - start - first) / 2, 1e-3)
        epochs = int(np.clip((seconds - (first - epoch)) / epoch, 1, self.most))
        self.note = f"{epochs} epochs"
        torch.manual_seed(seed)
        self.model = self._train(filled, discrete, epochs)

    @final
    def draw(self, n: int, seed: int) -> pd.DataFrame:
        import torch

        torch.manual_seed(seed)
        np.random.seed(seed)
        return self.model.sample(n).astype(self.types)

    def _train(self, table: pd.DataFrame, discrete: list[str], epochs: int) -> Any:
        model = self.make(epochs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(table, discrete)
        return model


@final
class Ctgan(_Gan):
    """Xu et al. (2019), conditional GAN."""

    name = "CTGAN"

    def make(self, epochs: int) -> Any:
        from ctgan import CTGAN

        return CTGAN(epochs=epochs)


@final
class Tvae(_Gan):
    """Xu et al. (2019), variational autoencoder."""

    name = "TVAE"

    def make(self, epochs: int) -> Any:
        from ctgan import TVAE

        return TVAE(epochs=epochs)


@final
class Forest(Maker):
    """ForestDiffusion (Jolicoeur-Martineau et al. 2024), flow, with its defaults but for K.

    It has no budget: K (100 by default) is as large as the time allows; where even one copy of
    every row is too slow, random rows are left out.
    """

    name = "ForestDiffusion"

    def fit(self, table: pd.DataFrame, seconds: float, seed: int) -> None:
        self.types = table.dtypes.to_dict()
        self.labels = {
            name: pd.Categorical(table[name]).categories
            for name in table
            if not pd.api.types.is_numeric_dtype(table[name])
        }
        self.names = list(table)
        shuffled = table.sample(frac=1, random_state=seed)
        copies = affordable(lambda *probe: self._train(shuffled, *probe, seed=seed), seconds)
        self.model = self._train(shuffled, copies, seed=seed)

    def draw(self, n: int, seed: int) -> pd.DataFrame:
        np.random.seed(seed)
        drawn = pd.DataFrame(self.model.generate(batch_size=n), columns=self.names)
        for name, labels in self.labels.items():
            codes = drawn[name].round().clip(0, len(labels) - 1).astype(int)
            drawn[name] = np.asarray(labels)[codes]
        whole = {k: v for k, v in self.types.items() if pd.api.types.is_integer_dtype(v)}
        drawn[list(whole)] = drawn[list(whole)].round()
        return drawn.astype(self.types)

    def _train(self, table: pd.DataFrame, copies: int, levels: int = LEVELS, *, seed: int) -> Any:
        from ForestDiffusion import ForestDiffusionModel

        table = table.iloc[:copies]
        repeats = min(100, copies // len(table))
        self.note = f"{len(table):,} rows, K = {repeats}"
        X = np.column_stack(
            [
                pd.Categorical(table[name], categories=self.labels[name]).codes
                if name in self.labels
                else table[name]
                for name in self.names
            ]
        ).astype(float)
        X[X < 0] = np.where(np.isin(np.nonzero(X < 0)[1], self._coded), np.nan, X[X < 0])
        sizes = {j: len(self.labels[self.names[j]]) for j in self._coded}
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ForestDiffusionModel(
                X,
                label_y=None,
                cat_indexes=[j for j, size in sizes.items() if size > 2],
                bin_indexes=[j for j, size in sizes.items() if size <= 2],
                int_indexes=[
                    j
                    for j, name in enumerate(self.names)
                    if pd.api.types.is_integer_dtype(self.types[name])
                ],
                diffusion_type="flow",
                n_t=levels,
                duplicate_K=repeats,
                n_jobs=1,
                seed=seed,
            )

    @property
    def _coded(self) -> list[int]:
        return [j for j, name in enumerate(self.names) if name in self.labels]


MAKERS: dict[str, type[Maker]] = {
    maker.name: maker for maker in (Reversal, Shuffled, Ctgan, Tvae, Forest)
}
