r"""One training in several processes, as `torchrun` starts them: DDP, or FSDP2.

Every process draws the noise of the whole batch from the same stream, and keeps the rows of its
share; so does dropout. With B rows in the batch and W processes, process r minimizes

.. math:: \frac{W}{B} \sum_{i \in \text{share}_r} \ell_i(\theta),

whose mean over the processes, which is what DDP and FSDP2 take of the gradients, is that of one
process. So the losses are those of one process but for the rounding of the sums, and a checkpoint
of one number of processes is one of any other. The run's folder is shared; process 0 alone prints,
and writes what is not cut into shards.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, final

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from reversal.errors import DataError
from reversal.noise import BatchShare
from reversal.training import sharding

Loss = Callable[[Tensor], Tensor]
FAREWELL: Final = timedelta(seconds=5)
"""How long a process that ends waits for the others."""


class World(ABC):
    """The processes of a training: which one this is, and what they do together.

    Every method but ``share`` and ``noise`` is called by all processes in the same order; where one
    has died, the others raise ``RuntimeError``, torch's own.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
    """

    rank: int
    size: int

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and decides."""
        return self.rank == 0

    @abstractmethod
    def share(self, total: int) -> slice:
        """Return the rows of this process in a batch of ``total``; none talks to another."""

    @abstractmethod
    def joined(self, part: Tensor, total: int) -> Tensor:
        """Return the rows of all processes, ``(total, *S)``, from those of this one.

        Cost: one broadcast per process, of its rows.
        """

    @abstractmethod
    def noise(self, generator: torch.Generator, total: int) -> Any:
        """Return the randomness of this process's rows in a batch of ``total``.

        Cost: every process draws for all rows.
        """

    @abstractmethod
    def wrapped(self, module: nn.Module, loss: Loss) -> Loss:
        """Return a scalar function of the whole batch whose gradient is that of the mean loss.

        Args:
            module: whose parameters get the gradient; its parameters may change their kind.
            loss: losses ``(n,)`` of the items of this process.

        Cost: the backward pass of the result sums the gradient over the processes.
        """

    @abstractmethod
    def mean(self, *values: float) -> list[float]:
        """Return means over the processes, in float64.

        Cost: one sum of as many numbers; the processes wait for each other.
        """

    @abstractmethod
    def gathered(self) -> AbstractContextManager[None]:
        """Let the module be called as it is inside the block.

        Cost: all weights, in every process, where they are cut into shards.
        """

    @abstractmethod
    def placed(self, value: Tensor, like: Tensor) -> Tensor:
        """Return a whole tensor as this process keeps it.

        Cost: sent to all processes, where they keep shards.
        """

    @abstractmethod
    def install(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Give a module plain parameters with weights as this process keeps them, by name.

        Raises:
            KeyError: or ``AttributeError``, if the module has no parameter of a name.

        Cost: all weights, in every process.
        """

    @abstractmethod
    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> list[str]:
        """Write what one process does not have; return the names of all files, if there are any.

        Raises:
            CheckpointError: in every process, if one of them cannot write.
            CapabilityError: if this PyTorch keeps no shards in safetensors.
        """


@final
class Alone(World):
    """One process."""

    rank, size = 0, 1

    def share(self, total: int) -> slice:
        return slice(0, total)

    def joined(self, part: Tensor, total: int) -> Tensor:
        return part

    def noise(self, generator: torch.Generator, total: int) -> torch.Generator:
        return generator

    def wrapped(self, module: nn.Module, loss: Loss) -> Loss:
        return lambda index: loss(index).mean()

    def mean(self, *values: float) -> list[float]:
        return list(values)

    def gathered(self) -> AbstractContextManager[None]:
        return nullcontext()

    def placed(self, value: Tensor, like: Tensor) -> Tensor:
        return value

    def install(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        _copy(module, weights)

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> list[str]:
        return []


class Group(World):
    """Several processes; what DDP and FSDP2 have in common.

    Raises:
        ValueError: torch's own, if no group was joined; `world_of` joins it.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def share(self, total: int) -> slice:
        return self._share(total, self.rank)

    def joined(self, part: Tensor, total: int) -> Tensor:
        whole = part.new_empty((total, *part.shape[1:]))
        for rank in range(self.size):
            rows = self._share(total, rank)
            own = part.contiguous() if rank == self.rank else whole[rows].contiguous()
            dist.broadcast(own, rank)
            whole[rows] = own
        return whole

    def noise(self, generator: torch.Generator, total: int) -> BatchShare:
        share = self.share(total)
        return BatchShare(generator, total, share.start, share.stop)

    def wrapped(self, module: nn.Module, loss: Loss) -> Loss:
        synced = self._synced(_Losses(module, loss))

        def scaled(index: Tensor) -> Tensor:
            share = self.share(len(index))
            with SharedDropout(len(index), share):
                return synced(index[share]).sum() * (self.size / len(index))

        return scaled

    def mean(self, *values: float) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return (total / self.size).tolist()

    @abstractmethod
    def _synced(self, module: nn.Module) -> nn.Module:
        """Return a module whose gradients are means over the processes."""

    def _share(self, total: int, rank: int) -> slice:
        return slice(rank * total // self.size, (rank + 1) * total // self.size)


@final
class Replicas(Group):
    """DDP: every process has all weights; the first one's are saved.

    Source: Li et al. (2020), PyTorch Distributed.
    """

    def _synced(self, module: nn.Module) -> nn.Module:
        return nn.parallel.DistributedDataParallel(module)

    def gathered(self) -> AbstractContextManager[None]:
        return nullcontext()

    def placed(self, value: Tensor, like: Tensor) -> Tensor:
        return value

    def install(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        _copy(module, weights)

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> list[str]:
        return []


@final
class Shards(Group):
    """FSDP2: weights, averages and moments are cut into one shard per process.

    Weights are whole during a step; every process saves its own shards (DCP, safetensors). Source:
    Zhao et al. (2023), PyTorch FSDP.
    """

    def _synced(self, module: nn.Module) -> nn.Module:
        self._module = sharding.sharded(module)
        return self._module

    @contextmanager
    def gathered(self) -> Iterator[None]:
        self._module.unshard()
        try:
            yield
        finally:
            self._module.reshard()

    def placed(self, value: Tensor, like: Tensor) -> Tensor:
        return sharding.placed(value, like)

    def install(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        sharding.unsharded(module, weights)

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> list[str]:
        return sharding.write(folder, tensors)


def world_of(shard: bool = False) -> World:
    """Return the processes that `torchrun` started, or the one that there is.

    Args:
        shard: FSDP2 in the place of DDP.

    Raises:
        DataError: if one process is asked to shard.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and not dist.is_initialized():
        if shard:
            raise DataError(
                "Expected several processes to shard a model over, got one. Start them: "
                "torchrun --nproc-per-node 2 -m reversal fit ..."
            )
        return Alone()
    if not dist.is_initialized():
        _join()
    return Shards() if shard else Replicas()


def _join() -> None:
    """Join the group, to leave it at the end of the process.

    ``torch.distributed.nn`` has the group for a default argument, if it is imported after this.
    """
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("gloo")
    atexit.register(_leave)


def _leave() -> None:
    """Leave the group together with the others, after all that refers to it.

    Its threads end with the last reference, and have to end before the process. A process that
    ends by an error does not wait for the others, which do not come.
    """
    gc.collect()
    if not dist.is_initialized():
        return
    if not hasattr(sys, "last_type"):
        with suppress(RuntimeError):
            dist.monitored_barrier(timeout=FAREWELL)
    sharding.forget()
    dist.destroy_process_group()


_TOGETHER: ContextVar[World | None] = ContextVar("together", default=None)


def current() -> World:
    """Return the processes that answer together: all of them inside `together`, else this one."""
    return _TOGETHER.get() or Alone()


@contextmanager
def together() -> Iterator[World]:
    """Let all processes that `torchrun` started answer the questions of the block together.

    Each must ask the same ones: of samples and scores every process computes its share of the rows,
    and all get the rows of one process, but for the rounding of sums in batches of another size.
    """
    token = _TOGETHER.set(world_of())
    try:
        yield current()
    finally:
        _TOGETHER.reset(token)


@final
class SharedDropout(TorchFunctionMode):
    """Inside the block dropout is that of the whole batch, of which this process has some rows.

    Args:
        total: the number of rows of the whole batch.
        share: the rows of this process.
    """

    def __init__(self, total: int, share: slice) -> None:
        super().__init__()
        self.total, self.share = total, share

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.dropout:
            return func(*args, **kwargs)
        return self._dropout(*args, **kwargs)

    def _dropout(
        self, value: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return value
        whole = value.new_ones((self.total, *value.shape[1:]))
        return value * F.dropout(whole, p, training=True)[self.share]


@final
class _Losses(nn.Module):
    """A module whose call is its loss, so that what wraps it sees a forward pass."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, index: Tensor) -> Tensor:
        return self.loss(index)


@torch.no_grad()
def _copy(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    parameters = dict(module.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value)
