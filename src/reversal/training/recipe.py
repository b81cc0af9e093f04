"""Processes, clocks and networks as plain JSON types, so that a run says how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from reversal import schedules
from reversal.clocks import FactorClocks, SharedClock, SiteClocks
from reversal.core import Path, Space
from reversal.errors import CheckpointError, DataError, listed
from reversal.networks import Architecture, Perceptron, Transformer
from reversal.one_site import OneSite
from reversal.processes import Brownian, Gaussian, Independent, Mask, Uniform
from reversal.spaces import SO3, Categorical, Euclidean, Torus
from reversal.times import LogNormalTimes, LowDiscrepancy, OnGrid

SPACES: dict[str, type[Any]] = {s.__name__: s for s in (Euclidean, Categorical, Torus, SO3)}
PROCESSES: dict[str, type[Any]] = {p.__name__: p for p in (Gaussian, Mask, Uniform, Brownian)}
NETWORKS: dict[str, type[Architecture]] = {n.__name__: n for n in (Perceptron, Transformer)}
_LAWS = (SharedClock, FactorClocks, SiteClocks, OneSite)
SCHEDULES: dict[str, Any] = {
    name: found
    for name, found in vars(schedules).items()
    if is_dataclass(found) and found is not schedules.Signals
}
PLAIN = (int, float, str, list, tuple, dict, type(None))
_TIMES = (LowDiscrepancy, OnGrid, LogNormalTimes)
CLOCKS: dict[str, type[Any]] = {c.__name__: c for c in (*_LAWS, *_TIMES)}


def process_to_config(process: Path) -> dict[str, Any]:
    """Return plain JSON types from which `process_from_config` rebuilds a process.

    Raises:
        CheckpointError: if the process has none.
    """
    parts: Any = process.parts
    if isinstance(process, Independent):
        factors = {name: process_to_config(part) for name, part in parts.items()}
        return {"type": "Independent", "factors": factors}
    kind = type(process).__name__
    if kind not in PROCESSES:
        raise CheckpointError(
            f"Expected a process among {listed(PROCESSES)} to save, got {kind}, which has no text "
            f"form. Save the weights of `model.denoiser_` on their own."
        )
    schedule: Any = process.schedule  # pyright: ignore[reportAttributeAccessIssue]
    return {
        "type": kind,
        "space": _space_to_config(process.space),
        "schedule": _to_config(schedule, SCHEDULES, "a schedule of reversal.schedules"),
    }


def process_from_config(config: dict[str, Any]) -> Any:
    """Return the process that `process_to_config` described.

    Raises:
        CheckpointError: if it names what this version does not know.
    """
    if config["type"] == "Independent":
        return Independent({k: process_from_config(p) for k, p in config["factors"].items()})
    schedule = _from_config(config["schedule"], SCHEDULES)
    return _known(PROCESSES, config["type"])(_space_from_config(config["space"]), schedule)


def network_to_config(network: Any) -> dict[str, Any]:
    """Return plain JSON types from which `network_from_config` rebuilds the size of a network.

    Raises:
        DataError: if it is none of those that a run can name.
    """
    kind = type(network).__name__
    if NETWORKS.get(kind) is not type(network):
        raise DataError(
            f"Expected a network among {listed(NETWORKS)}, got {network!r}. Write "
            f"network=rv.Transformer(), or train a network of your own by NetworkDenoiser."
        )
    return {"type": kind, **asdict(network)}


def network_from_config(config: Mapping[str, Any]) -> Architecture:
    """Return the size that `network_to_config` described; one without a type is a `Perceptron`.

    Raises:
        CheckpointError: if it names what this version does not know.
    """
    size = dict(config)
    return _known(NETWORKS, size.pop("type", Perceptron.__name__))(**size)


def clocks_to_config(law: Any) -> dict[str, Any]:
    """Return plain JSON types from which `clocks_from_config` rebuilds a law of clocks or times.

    Raises:
        CheckpointError: if the law has none.
    """
    return _to_config(law, CLOCKS | SCHEDULES, f"clocks among {listed(CLOCKS)}")


def clocks_from_config(config: dict[str, Any]) -> Any:
    """Return the law that `clocks_to_config` described.

    Raises:
        CheckpointError: if it names what this version does not know.
    """
    return _from_config(config, CLOCKS | SCHEDULES)


def _to_config(value: Any, known: Mapping[str, Any], wanted: str) -> dict[str, Any]:
    """A dataclass whose type has a name, and its fields, as plain JSON types."""
    kind = type(value).__name__
    if known.get(kind) is not type(value):
        raise CheckpointError(
            f"Expected {wanted} to save, got {kind}, which has no text form. "
            f"Save the weights of `model.denoiser_` on their own."
        )
    values = {field.name: getattr(value, field.name) for field in fields(value)}
    return {"type": kind} | {
        name: part if isinstance(part, PLAIN) else _to_config(part, known, wanted)
        for name, part in values.items()
    }


def _from_config(config: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    values = {k: _from_config(v, known) if isinstance(v, dict) else v for k, v in config.items()}
    return _known(known, values.pop("type"))(**values)


def _space_to_config(space: Space) -> dict[str, Any]:
    shape: Any = space.sites
    if isinstance(space, Categorical):
        shape = space.cardinalities or (space.num_values, *space.sites)
    packed = isinstance(space, Categorical) and space.cardinalities is not None
    return {"type": type(space).__name__, "shape": list(shape), "packed": packed}


def _space_from_config(config: dict[str, Any]) -> Space:
    kind, shape = _known(SPACES, config["type"]), config["shape"]
    return kind(tuple(shape)) if config["packed"] else kind(*shape)


def _known(names: Any, name: str) -> Any:
    if name not in names:
        raise CheckpointError(
            f"Expected a run with parts that this version knows, got {name!r}. "
            f"Install the version of reversal that wrote it."
        )
    return names[name]
