r"""A model of digits as a prior that is plugged into a fit: tomography of 8 x 8 pictures.

Of a digit only its sums along rows, columns and diagonals were measured, 46 noisy numbers of which
far fewer are independent. The picture is fitted by gradient descent on the misfit plus the loss
that the model was trained with, at noise levels that fall,

.. math:: \min_x \; \frac{|y - A x|^2}{2 s^2} + E\, |\epsilon - \hat\epsilon(x_t, t)|^2, \qquad
   x_t = \alpha_t x + \sigma_t \epsilon,

a point estimate: one likely picture. Source: Graikos et al. (2022), "Diffusion models as
plug-and-play priors", arXiv 2206.09012. Beside it stand draws from the posterior by guidance with
the same model, which say what was not measured, and the best linear estimate.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import reversal as rv

mpl.use("Agg")
import matplotlib.pyplot as plt

NOISE, SHOWN, HELD_OUT = 0.1, 8, 120


def tomograph() -> Tensor:
    """The sums along rows, columns and both diagonals, divided by their lengths, ``(46, 64)``."""
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    lines = [(rows, 8), (columns, 8), (rows + columns, 15), (rows - columns + 7, 15)]
    sums = torch.cat([nn.functional.one_hot(at.flatten(), n).mT for at, n in lines]).float()
    return sums / sums.sum(1, keepdim=True)


class Network(nn.Module):
    """A perceptron over the pixels and the time."""

    def __init__(self, width: int = 384) -> None:
        super().__init__()
        self.first = nn.Linear(64 + 16, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(),
                          nn.Dropout(0.1), nn.Linear(width, width)) for _ in range(3)
        )  # fmt: skip
        self.last = nn.Linear(width, 64)

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Tensor:
        waves = t[:, None] * 2.0 ** torch.arange(8).to(t)
        h = self.first(torch.cat([x_t, waves.sin(), waves.cos()], 1))
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)


def trained(digits: Tensor, steps: int) -> rv.NetworkDenoiser:
    """Fit a model of digits."""
    process = rv.Gaussian(rv.Euclidean(64), rv.Cosine())
    denoiser = rv.NetworkDenoiser(Network(), process, rv.Preconditioned())
    optimizer = torch.optim.Adam(denoiser.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = digits[torch.randint(len(digits), (192,), generator=rng)]
        loss = rv.Regression()(denoiser, batch, generator=rng).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return denoiser.eval()


def plugged(model: rv.NetworkDenoiser, operator: Tensor, y: Tensor, steps: int = 300) -> Tensor:
    """Fit every picture on its own, from nothing; the weights of the model stand still."""
    model.requires_grad_(False)
    x = torch.zeros(len(y), 64, requires_grad=True)
    optimizer, rng = torch.optim.Adam([x], 0.05), torch.Generator().manual_seed(1)
    for step in range(steps):
        t = torch.full((len(y),), 0.8 - 0.7 * step / steps)
        kernel = model.process.kernel(x, t)
        x_t = kernel.sample(rng)
        surprise = (kernel.target(rv.Kind.NOISE, x_t) - model(x_t, t).noise).square().sum(1)
        misfit = (y - x @ operator.mT).square().sum(1) / (2 * NOISE**2)
        optimizer.zero_grad()
        (misfit + surprise).sum().backward()
        optimizer.step()
    return x.detach()


def drawn(model: rv.NetworkDenoiser, operator: Tensor, y: Tensor, draws: int = 8) -> Tensor:
    """Draws from the posterior of every picture, ``(pictures, draws, 64)``."""
    seen = rv.LinearObservation(operator, y, NOISE)
    guided = rv.Reconstruction(model, rv.MomentMatching(seen, iterations=5))
    rng = torch.Generator().manual_seed(2)
    x = rv.Ancestral().sample(guided, len(y) * draws, steps=40, generator=rng)
    return x.view(len(y), draws, 64)


def picture(out: Path, rows: dict[str, Tensor]) -> None:
    figure, panels = plt.subplots(len(rows), SHOWN, figsize=(6, 0.82 * len(rows)))
    for line, (name, images) in zip(panels, rows.items(), strict=True):
        for panel, image in zip(line, images[:SHOWN], strict=True):
            panel.imshow(image.view(8, 8), cmap="gray_r", vmin=-1, vmax=1)
            panel.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.tight_layout(pad=0.3)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "plug-and-play.png", dpi=80)


def main(out: Path, steps: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images = torch.tensor(load_digits().data).float() / 8 - 1
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    unseen, known = images[order[:HELD_OUT]], images[order[HELD_OUT:]]
    model, operator = trained(known, steps), tomograph()
    noise = torch.randn((HELD_OUT, 46), generator=torch.Generator().manual_seed(3))
    y = unseen @ operator.mT + NOISE * noise
    mean, spread = known.mean(0), known.mT.cov()
    total = operator @ spread @ operator.mT + NOISE**2 * torch.eye(46)
    gain = spread @ operator.mT @ torch.linalg.inv(total)
    posterior = drawn(model, operator, y)
    found = {
        "best linear": mean + (y - mean @ operator.mT) @ gain.mT,
        "plugged in": plugged(model, operator, y),
        "one draw": posterior[:, 0],
        "mean of 8": posterior.mean(1),
    }
    print("             error of a pixel   misfit in standard deviations")
    error = {}
    for name, x in found.items():
        error[name] = float((x - unseen).square().mean().sqrt())
        misfit = float((y - x @ operator.mT).square().mean().sqrt()) / NOISE
        print(f"{name:12} {error[name]:16.3f} {misfit:20.2f}")
    print(f"spread of the draws of one picture: {float(posterior.std(1).mean()):.3f}")
    picture(out, {"true": unseen, **found})
    assert error["plugged in"] < error["best linear"]
    assert error["mean of 8"] < error["best linear"]
    assert error["mean of 8"] < error["one draw"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    pictures = Path(__file__).resolve().parents[1] / "docs" / "pictures"
    parser.add_argument("--out", type=Path, default=pictures, help="folder of the picture")
    parser.add_argument("--steps", type=int, default=1500, help="of training")
    arguments = parser.parse_args()
    main(arguments.out, arguments.steps)
