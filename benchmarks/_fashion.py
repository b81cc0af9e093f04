"""Fashion-MNIST for the benchmark: the images, a classifier whose features measure, two recipes."""

from __future__ import annotations

import copy
import gzip
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reversal as rv

SPACE = rv.Euclidean(1, 28, 28)
CLASSES = 10
CHANNELS, BATCH, DROPPED = (24, 48, 48), 64, 0.1
GREATEST = 1000
"""The number of time steps of DDPM."""


def read(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Return grey levels ``(B, 1, 28, 28)`` and classes of "train" or "t10k"."""
    images, labels = (
        np.frombuffer(gzip.decompress((folder / f"{part}-{kind}-ubyte.gz").read_bytes()), np.uint8)
        for kind in ("images-idx3", "labels-idx1")
    )
    codes = torch.from_numpy(images[16:].reshape(-1, 1, 28, 28).astype(np.int64))
    return codes, torch.from_numpy(labels[8:].astype(np.int64))


def shown(codes: Tensor) -> Tensor:
    """Grey levels as numbers in [-1, 1]."""
    return codes.float() / 127.5 - 1


@final
class Classifier(nn.Module):
    """Two convolutions; its 64 features before the last layer are what images are compared by."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 49, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def fit(self, codes: Tensor, labels: Tensor, epochs: int, rng: torch.Generator) -> None:
        """Train by Adam with a rate that falls to zero."""
        batches = len(codes) // 128
        optimizer = torch.optim.Adam(self.parameters(), 2e-3)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
        for _ in range(epochs):
            for rows in torch.randperm(len(codes), generator=rng)[: 128 * batches].split(128):
                optimizer.zero_grad()
                F.cross_entropy(self(shown(codes[rows])), labels[rows]).backward()
                optimizer.step()
                decay.step()
        self.eval()

    @torch.no_grad()
    def features(self, x: Tensor) -> np.ndarray:
        """Return the features ``(B, 64)``."""
        return torch.cat([self.body(part) for part in x.split(500)]).double().numpy()


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    r"""Return |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^{1/2}). Source: Heusel et al. (2017)."""
    first, second = np.cov(a.T), np.cov(b.T)
    cross = np.sqrt(np.linalg.eigvals(first @ second).real.clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second) - 2 * cross)


class Recipe(ABC):
    """How a network is trained, and what of it a sampler is given."""

    name: str
    path: Any
    parametrization: Any
    rate: float
    warmup: int

    @abstractmethod
    def loss(self, denoiser: Any, codes: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Return the mean loss of a batch whose classes are partly lost already."""

    @abstractmethod
    def decay(self, step: int) -> float:
        """Return how much of the average stays."""

    @final
    def fit(
        self, codes: Tensor, labels: Tensor, seconds: float, seed: int
    ) -> tuple[Any, dict[str, Any]]:
        """Train for that long, and return the average, and what it took."""
        torch.manual_seed(seed)
        rng = torch.Generator().manual_seed(seed)
        network = rv.UNet(1, CHANNELS, num_classes=CLASSES)
        denoiser = rv.NetworkDenoiser(network, self.path, self.parametrization)
        average = copy.deepcopy(denoiser).requires_grad_(False)
        optimizer = torch.optim.AdamW(denoiser.parameters(), self.rate)
        start, step = time.monotonic(), 0
        while (share := (time.monotonic() - start) / seconds) < 1:
            rows = torch.randint(len(codes), (BATCH,), generator=rng)
            lost = torch.rand(BATCH, generator=rng) < DROPPED
            loss = self.loss(denoiser, codes[rows], labels[rows].where(~lost, CLASSES), rng)
            for group in optimizer.param_groups:
                falling = (1 + math.cos(math.pi * share)) / 2
                group["lr"] = self.rate * min(1, (step + 1) / self.warmup) * falling
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
            optimizer.step()
            keep = self.decay(step)
            for mean, weight in zip(average.parameters(), denoiser.parameters(), strict=True):
                mean.lerp_(weight.detach(), 1 - keep)
            step += 1
        return average.eval(), {"steps": step, "fit_seconds": time.monotonic() - start}


@final
class Ours(Recipe):
    """The cosine schedule, the default loss of the velocity, low-discrepancy times."""

    name = "ours"
    path = rv.Gaussian(SPACE, rv.Cosine())
    parametrization = rv.Velocity()
    rate, warmup = 1e-3, 100

    def loss(self, denoiser: Any, codes: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
        x = rv.dequantized(codes, generator=rng)
        return rv.Regression()(denoiser, x, labels, generator=rng).mean()

    def decay(self, step: int) -> float:
        return min(0.999, (1 + step) / (10 + step))


@final
class Theirs(Recipe):
    """The unconditional example of diffusers, with classes: DDPM's linear betas, epsilon, its rate.

    The noise is added by its `DDPMScheduler`.
    """

    name = "diffusers' DDPM"
    path = rv.Gaussian(SPACE, rv.Betas.linear(GREATEST))
    parametrization = rv.Noise()
    rate, warmup = 1e-4, 500

    def __init__(self) -> None:
        from diffusers import DDPMScheduler  # pyright: ignore[reportMissingImports]

        self.scheduler = DDPMScheduler(num_train_timesteps=GREATEST)

    def loss(self, denoiser: Any, codes: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
        x = shown(codes)
        noise = torch.randn(x.shape, generator=rng)
        k = torch.randint(GREATEST, (len(x),), generator=rng)
        x_t = self.scheduler.add_noise(x, noise, k)
        return F.mse_loss(denoiser.network(x_t, (k + 1) / GREATEST, labels), noise)

    def decay(self, step: int) -> float:
        return min(0.9999, 1 - (1 + step) ** -0.75)


Draw = Callable[[Any, Tensor, int, torch.Generator], Tensor]
"""Draws images of classes by a denoiser in so many calls."""


@torch.no_grad()
def by_ours(denoiser: Any, labels: Tensor, calls: int, rng: torch.Generator) -> Tensor:
    """`Multistep`, the default of `Model`."""
    return rv.Multistep().sample(denoiser, len(labels), calls, cond=labels, generator=rng)


def by_theirs(make: Callable[[], Any]) -> Draw:
    """Return the draws of a scheduler of diffusers under DDPM's betas, for any Gaussian denoiser.

    A network that was trained under another schedule is asked at the same signal-to-noise ratio.
    """

    @torch.no_grad()
    def draw(denoiser: Any, labels: Tensor, calls: int, rng: torch.Generator) -> Tensor:
        scheduler = make()
        scheduler.set_timesteps(calls)
        kept = scheduler.alphas_cumprod.double()
        times = denoiser.process.schedule.time_of((kept / (1 - kept)).log() / 2)
        x = torch.randn((len(labels), *SPACE.event_shape), generator=rng)
        for k in scheduler.timesteps:
            noise = denoiser(x, times[k].expand(len(labels)), labels).noise
            x = scheduler.step(noise, k, x, generator=rng).prev_sample
        return x

    return draw


def samplers() -> dict[str, Draw]:
    """Return the ways to draw, by name."""
    from diffusers import (  # pyright: ignore[reportMissingImports]
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
    )

    makers = (DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler)
    theirs = {f"diffusers' {m.__name__.removesuffix('Scheduler')}": by_theirs(m) for m in makers}
    return {"ours": by_ours, **theirs}
