"""What FSDP2 and DCP ask for: shards of weights, and their files in safetensors."""

from __future__ import annotations

import secrets
import shutil
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reversal.errors import CapabilityError, CheckpointError

PREFIX: Final = "shards-"
_MESHES: Final[list[Any]] = []
HOOKS: Final = (
    *("_state_dict_pre_hooks", "_state_dict_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)
"""Where FSDP2 leaves functions that hold the shards, and with them the group."""
FSDP: Final = "torch.distributed.fsdp."


def sharded(module: nn.Module) -> Any:
    """Cut the parameters of a module into shards, in place."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = next(module.parameters()).device.type
    _MESHES.append(mesh := init_device_mesh(device, (dist.get_world_size(),)))
    return fully_shard(module, mesh=mesh)


def forget() -> None:
    """Let the meshes go of their groups: the caches of DTensor keep a mesh as long as a process."""
    for mesh in _MESHES:
        getattr(mesh, "_pg_registry", {}).clear()
    _MESHES.clear()


def placed(value: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor cut as another one is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value, like.device_mesh, like.placements)


def whole(value: Tensor) -> Tensor:
    """Return a tensor put together from its shards."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def unsharded(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a module plain parameters again, by name; nothing in it refers to shards any more."""
    for name, value in weights.items():
        owner, _, leaf = name.rpartition(".")
        parameter = nn.Parameter(whole(value).detach().clone())
        module.get_submodule(owner).register_parameter(leaf, parameter)
    for hooks in (getattr(part, name) for part in module.modules() for name in HOOKS):
        for key in [k for k, hook in hooks.items() if hook.__module__.startswith(FSDP)]:
            del hooks[key]


def write(folder: Path, tensors: Mapping[str, Tensor]) -> list[str]:
    """Write the shards of this process into a new folder that all agree on.

    Returns:
        The files of all processes, relative to ``folder``.

    Raises:
        CheckpointError: in every process, if one of them cannot write; `sweep` removes what is
            written by then.
        CapabilityError: if this PyTorch keeps no shards in safetensors.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_saver import save

    token = torch.tensor(secrets.randbits(62))
    dist.broadcast(token, 0)
    place = folder / f"{PREFIX}{int(token):x}"
    writer = _storage("HuggingFaceStorageWriter")(str(place), save_distributed=True)
    try:
        save(dict(tensors), storage_writer=writer)
    except CheckpointException as error:
        reasons = {_reason(failure) for failure, _ in error.failures.values()}
        raise CheckpointError(
            f"Expected to write a run to {str(folder)!r}, got: {'; '.join(sorted(reasons))}. "
            f"Choose a folder that may be written to and has room."
        ) from error
    dist.barrier()
    return sorted(f"{place.name}/{path.name}" for path in place.glob("*.safetensors"))


def read(folder: Path, names: Collection[str]) -> dict[str, Tensor]:
    """Return the whole tensors of which the files in a folder hold the shards."""
    from torch.distributed.checkpoint.state_dict_loader import load

    (place,) = {folder / name.split("/")[0] for name in names}
    reader = _storage("HuggingFaceStorageReader")(str(place))
    entries: Any = reader.read_metadata().state_dict_metadata
    tensors = {k: torch.empty(e.size, dtype=e.properties.dtype) for k, e in entries.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that one process reads is meant
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def sweep(folder: Path, names: Collection[str]) -> None:
    """Remove the shards of older states, and of states that were not written whole."""
    kept = {name.split("/")[0] for name in names}
    for place in [p for p in folder.glob(f"{PREFIX}*") if p.name not in kept]:
        shutil.rmtree(place, ignore_errors=True)


def _reason(failure: BaseException) -> str:
    """Return what went wrong, on one line: an operating system says it in its own words."""
    words = getattr(failure, "strerror", None) or str(failure)
    return " ".join(words.split()).rstrip(".")


def _storage(name: str) -> Any:
    """Return a class of DCP.

    Raises:
        CapabilityError: if this PyTorch has none.
    """
    import torch.distributed.checkpoint as dcp

    if not hasattr(dcp, name):
        raise CapabilityError(
            f"Expected a PyTorch that keeps shards in safetensors, got {torch.__version__}. "
            "Install a newer one, or train without --shard."
        )
    return getattr(dcp, name)
