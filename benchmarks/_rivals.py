"""Makers of synthetic tables, ours and others', behind one interface: fit within seconds, draw.

Whoever has no budget of its own is given one: a probe on few epochs or rows is timed, and the
epochs or the rows are chosen so that the whole fit takes about as long as it may.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from abc import ABC, abstractmethod
from typing import Any, final

import numpy as np
import pandas as pd

import reversal as rv
from benchmarks._tables import shuffled


class Maker(ABC):
    """What learns a table and draws rows."""

    name: str
    note: str = ""

    @abstractmethod
    def fit(self, table: pd.DataFrame, seconds: float, seed: int) -> None:
        """Learn a table in about that many seconds."""

    @abstractmethod
    def draw(self, n: int, seed: int) -> pd.DataFrame:
        """Return n new rows with the dtypes of the table."""


@final
class Reversal(Maker):
    """`Model` with default settings."""

    name = "reversal"

    def fit(self, table: pd.DataFrame, seconds: float, seed: int) -> None:
        self.model = rv.Model(seconds / 60, seed=seed, show_progress=False).fit(table)
        self.note = f"{self.model.trace_.steps:,} steps"

    def draw(self, n: int, seed: int) -> pd.DataFrame:
        return self.model.sample(n, seed=seed)


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
        start = time.monotonic()
        self._train(filled, discrete, 1)
        first = time.monotonic() - start
        start = time.monotonic()
        self._train(filled, discrete, 3)
        epoch = max((time.monotonic() - start - first) / 2, 1e-3)
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

    It has no budget, and its time is that of boosting on rows x K noised copies, linear in them
    beyond what the trees cost in any case. Two probes tell the line, and K (100 by default) is as
    large as the time allows; where even one copy of every row is too slow, random rows are left
    out.
    """

    name = "ForestDiffusion"
    probes = (1_000, 4_000)

    def fit(self, table: pd.DataFrame, seconds: float, seed: int) -> None:
        self.types = table.dtypes.to_dict()
        self.labels = {
            name: pd.Categorical(table[name]).categories
            for name in table
            if not pd.api.types.is_numeric_dtype(table[name])
        }
        self.names = list(table)
        shuffled = table.sample(frac=1, random_state=seed)
        times = []
        for copies in self.probes:
            start = time.monotonic()
            self._train(shuffled, copies, seed)
            times.append(time.monotonic() - start)
        slope = max(times[1] - times[0], 1e-3) / (self.probes[1] - self.probes[0])
        copies = self.probes[0] + (seconds - times[0]) / slope
        self.model = self._train(shuffled, int(max(copies, self.probes[0])), seed)

    def draw(self, n: int, seed: int) -> pd.DataFrame:
        np.random.seed(seed)
        drawn = pd.DataFrame(self.model.generate(batch_size=n), columns=self.names)
        for name, labels in self.labels.items():
            codes = drawn[name].round().clip(0, len(labels) - 1).astype(int)
            drawn[name] = np.asarray(labels)[codes]
        whole = {k: v for k, v in self.types.items() if pd.api.types.is_integer_dtype(v)}
        drawn[list(whole)] = drawn[list(whole)].round()
        return drawn.astype(self.types)

    def _train(self, table: pd.DataFrame, copies: int, seed: int) -> Any:
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
                duplicate_K=repeats,
                n_jobs=-1,
                seed=seed,
            )

    @property
    def _coded(self) -> list[int]:
        return [j for j, name in enumerate(self.names) if name in self.labels]


MAKERS: dict[str, type[Maker]] = {
    maker.name: maker for maker in (Reversal, Shuffled, Ctgan, Tvae, Forest)
}
