"""What two scripts share: scikit-learn's 8 x 8 digits and a small network that denoises them."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import reversal as rv


def pixels() -> Tensor:
    """All 1797 digits, 64 numbers in [-1, 1] each."""
    return torch.tensor(load_digits().data).float() / 8 - 1


class Network(nn.Module):
    """Two hidden layers that read 64 pixels and waves of the time."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64 + 8, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 64)
        )

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        angle = t[:, None] * torch.tensor([1.5, 3.0, 6.0, 12.0])
        return self.layers(torch.cat([x, angle.sin(), angle.cos()], 1))


def train(x_0: Tensor, steps: int, seed: int = 0) -> rv.NetworkDenoiser:
    """Denoising score matching under Gaussian noise, by Adam with a cosine schedule."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    process = rv.Gaussian(rv.Euclidean(64))
    denoiser = rv.NetworkDenoiser(Network(), process, rv.Preconditioned(0.75))
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = x_0[torch.randint(len(x_0), (256,), generator=generator)]
        loss = rv.Regression()(denoiser, batch, generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return denoiser
