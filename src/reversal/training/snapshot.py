"""All that the rest of a run depends on, as tensors by name and plain JSON types, and back.

Weights, their average and the best average; the moments of the optimizer; the states of the random
generators: the run's own, torch's, and that of every accelerator that holds weights; the step, the
number of steps, and what was read on the way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from reversal.errors import CheckpointError
from reversal.training.keeping import Saved
from reversal.training.logs import Check

if TYPE_CHECKING:
    from reversal.training.loop import Run

NUMBERS: Final = ("steps", "least", "stale", "loss", "latest", "stderr")
MOMENTS: Final = ("exp_avg", "exp_avg_sq", "step")


def snapshot(run: Run) -> Saved:
    """Return the state of a run between two steps; the tensors are its own, not copies."""
    average = run.average
    tensors = {f"module.{name}": part for name, part in run.module.state_dict().items()}
    for kind, weights in (("average", average.shadow), ("best", run.best)):
        tensors |= {f"{kind}.{name}": part for name, part in average.named(weights).items()}
    for name, parameter in average.named(average.parameters).items():
        moments = run.optimizer.state[parameter]
        tensors |= {f"optimizer.{key}.{name}": moments[key] for key in MOMENTS}
    tensors["random.own"] = run.generator.get_state()
    tensors["random.torch"] = torch.get_rng_state()
    for device in accelerators(run.module):
        tensors[f"random.{device}"] = torch.get_device_module(device).get_rng_state(device)
    content: dict[str, Any] = {name: _plain(getattr(run, name)) for name in NUMBERS}
    content |= {"seconds": run.seconds, "updates": average.updates, "order": run.batches.seed}
    content |= {"done": run.trace.steps, "best_step": run.trace.best_step}
    content["checks"] = [[_plain(value) for value in check] for check in run.trace.checks]
    return Saved(tensors, content)


def restore(run: Run, saved: Saved) -> None:
    """Let a run that has not begun go on from a snapshot.

    Raises:
        CheckpointError: if the snapshot is one of another kind of run.
    """
    try:
        _restore(run, *saved)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"Expected the state of a training that this version goes on with, got one without "
            f"{error}. Install the version of reversal that wrote it, or fit anew."
        ) from error


@torch.no_grad()
def _restore(run: Run, tensors: dict[str, torch.Tensor], content: dict[str, Any]) -> None:
    average = run.average
    groups: dict[str, Any] = {"module": run.module.state_dict(), "best": average.named(run.best)}
    groups["average"] = average.named(average.shadow)
    for kind, weights in groups.items():
        for name, part in weights.items():
            part.copy_(run.world.placed(tensors[f"{kind}.{name}"], part))
    for name, parameter in average.named(average.parameters).items():
        moments = {key: tensors[f"optimizer.{key}.{name}"] for key in MOMENTS}
        cut = {k: run.world.placed(v, parameter) if v.ndim else v for k, v in moments.items()}
        run.optimizer.state[parameter] = cut
    run.generator.set_state(tensors["random.own"])
    torch.set_rng_state(tensors["random.torch"])
    for device in accelerators(run.module):
        if f"random.{device}" in tensors:
            state = tensors[f"random.{device}"]
            torch.get_device_module(device).set_rng_state(state, device)
    for name in NUMBERS:
        setattr(run, name, _number(content[name]))
    average.updates, run.batches.seed = content["updates"], content["order"]
    run.before = content["seconds"]
    run.sitting = run.trace.steps = content["done"]
    run.trace.best_step = content["best_step"]
    run.trace.checks = [Check(*map(_number, check)) for check in content["checks"]]


def accelerators(module: nn.Module) -> list[torch.device]:
    """Return the devices with a generator of their own that hold weights, in order."""
    devices = {part.device for part in module.parameters()}
    return sorted((at for at in devices if at.type not in ("cpu", "meta")), key=str)


def _plain(value: Any) -> Any:
    """Return a number as JSON has it: a word for what is not finite."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value
