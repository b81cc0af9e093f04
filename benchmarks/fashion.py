"""Fashion-MNIST: our training or the DDPM recipe of diffusers, our sampler or theirs.

Run ``python benchmarks/fashion.py``. It reads the Debian package dataset-fashion-mnist; ``--data``
names another folder with the same four files. One U-Net is trained for ``--minutes`` by either
recipe, and either network is drawn from by all samplers at 10, 20 and 50 calls. Images are compared
with held-out ones by the Frechet distance of the features of a classifier that is trained here: the
figures say which of these rows is better, and nothing of other papers' FID. Every figure is
appended to ``fashion.jsonl``; pictures of our seed 0 go to ``--out``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import reversal as rv
from benchmarks._fashion import (
    CLASSES,
    SPACE,
    Classifier,
    Ours,
    Recipe,
    Theirs,
    frechet,
    read,
    samplers,
    shown,
)
from benchmarks._records import Ledger, cell

mpl.use("Agg")
import matplotlib.pyplot as plt

SECTION = "## Fashion-MNIST"
CALLS = (10, 20, 50)
CLASSIFIER_EPOCHS, SCORED, STRENGTHS = 6, 128, (0.0, 1.0, 2.0, 4.0)
NETWORK = "network"
"""The place in the ledger of what a network says by itself."""


def drawn(draw: Any, denoiser: Any, count: int, calls: int, seed: int) -> Tensor:
    """Return images of all classes alike."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    parts = [draw(denoiser, part, calls, rng) for part in labels.split(500)]
    return torch.cat(parts).clamp(-1, 1)


def bits(denoiser: Any, codes: Tensor, seed: int) -> Any:
    """Return the bound of bits per dimension of grey levels, without classes."""
    rng = torch.Generator().manual_seed(seed)
    found = rv.dequantized_log_prob(
        lambda x: rv.elbo(denoiser, x, num_samples=16, generator=rng),
        codes,
        num_samples=2,
        generator=rng,
    )
    return rv.bits_per_dim(found, SPACE).value.mean().item()


def measured(ledger: Ledger, recipe: Recipe, args: Any, seed: int) -> Any:
    """Train, draw, compare; return the denoiser."""
    codes, labels = read(args.data, "train")
    held, _ = read(args.data, "t10k")
    torch.manual_seed(0)
    classifier = Classifier()
    classifier.fit(codes, labels, CLASSIFIER_EPOCHS, torch.Generator().manual_seed(0))
    real = classifier.features(shown(held))
    place = {"table": recipe.name, "seed": seed}
    rows = torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))[: args.count]
    floor = frechet(classifier.features(shown(codes[rows])), real)
    denoiser, took = recipe.fit(codes, labels, 60 * args.minutes, seed)
    own = {"bits": bits(denoiser, held[:SCORED], seed), "floor": floor}
    ledger.keep(place | {"maker": NETWORK, "minutes": args.minutes} | own | took)
    for name, draw in samplers().items():
        found = {
            str(calls): frechet(
                classifier.features(drawn(draw, denoiser, args.count, calls, seed)), real
            )
            for calls in CALLS
        }
        ledger.keep(place | {"maker": name} | found)
    return denoiser


def section(ledger: Ledger) -> str:
    """Return the section of RESULTS.md."""
    networks = [row for row in ledger.rows if row["maker"] == NETWORK]
    floor = cell([row["floor"] for row in networks], 2)
    lines = ledger.heading(
        "python benchmarks/fashion.py",
        f"One U-Net, {networks[0]['minutes']:g} minutes of training by either recipe. Frechet "
        f"distance to the held-out images in the features of a classifier trained by the script, "
        f"at 10, 20 and 50 calls, less is better; training images are at {floor}. Bits per "
        f"dimension: upper bound, uniform dequantization, {SCORED} held-out images, no classes.",
    )
    calls = [str(k) for k in CALLS]
    lines += [f"| training | sampler | seeds | {' | '.join(calls)} | bits per dimension | steps |"]
    lines += [f"|---|---|{'--:|' * (len(calls) + 3)}"]
    for recipe in dict.fromkeys(row["table"] for row in networks):
        own = ledger.of(recipe, NETWORK)
        bound, steps = cell([r["bits"] for r in own], 3), cell([r["steps"] for r in own], 0)
        made = dict.fromkeys(row["maker"] for row in ledger.rows if row["table"] == recipe)
        for maker in (name for name in made if name != NETWORK):
            rows = ledger.of(recipe, maker)
            cells = [cell([row[k] for row in rows], 2) for k in calls]
            lines += [
                f"| {recipe} | {maker} | {len(rows)} | {' | '.join(cells)} | {bound} | {steps} |"
            ]
    return "\n".join(lines)


@torch.no_grad()
def pictures(denoiser: Any, out: Path) -> None:
    """Draw ten images of each class, two classes under guidance, and a path from noise."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(CLASSES).repeat_interleave(10)
    sampler = rv.Multistep()
    saved(sampler.sample(denoiser, 100, 50, cond=labels, generator=rng), 10, out / "fashion.png")
    rows = []
    for strength in STRENGTHS:
        guided = rv.ClassifierFree(denoiser, strength, null=CLASSES)
        noise = torch.Generator().manual_seed(1)
        asked = torch.tensor([5, 8]).repeat_interleave(6)
        rows.append(sampler.sample(guided, 12, 50, cond=asked, generator=noise))
    saved(torch.cat(rows), 12, out / "fashion-guidance.png")
    walk: list[Tensor] = []
    sampler.sample(
        denoiser, 4, 50, cond=torch.tensor([0, 3, 7, 9]), generator=rng,
        on_step=lambda _, x: walk.append(x),
    )  # fmt: skip
    shown_at = [walk[k] for k in range(4, 50, 5)]
    saved(torch.stack(shown_at, 1).flatten(0, 1), len(shown_at), out / "fashion-path.png")


def saved(images: Tensor, columns: int, path: Path) -> None:
    """Write images side by side as one picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = images.clamp(-1, 1).unflatten(0, (-1, columns))[:, :, 0]
    plt.imsave(path, -grid.permute(0, 2, 1, 3).flatten(0, 1).flatten(1), cmap="gray")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--count", type=int, default=2000, help="images drawn for each figure")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    args = parser.parse_args()
    if not (args.data / "train-images-idx3-ubyte.gz").is_file():
        print(f"left out: no Fashion-MNIST in {str(args.data)!r}; install dataset-fashion-mnist")
        return
    try:
        recipes = (Ours(), Theirs())
    except ImportError:
        print("left out: diffusers is not installed; pip install -e '.[bench]'")
        return
    ledger = Ledger(SECTION, Path(__file__).with_name("fashion.jsonl"))
    for seed in args.seeds:
        for recipe in recipes:
            denoiser = measured(ledger, recipe, args, seed)
            if recipe.name == Ours.name and seed == 0:
                pictures(denoiser, args.out)
    ledger.write(section(ledger))


if __name__ == "__main__":
    main()
