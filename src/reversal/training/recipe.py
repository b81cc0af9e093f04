"""Processes, clocks and networks as plain JSON types, so that a run says how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from reversal import schedules
from reversal.clocks import FactorClocks, LowDiscrepancy, OnGrid, SharedClock, SiteClocks
from reversal.core import Path, Space
from reversal.errors import CheckpointError, DataError, listed
from reversal.networks import Architecture, Perceptron, Transformer
from reversal.one_site import OneSite
from reversal.processes import Brownian, Gaussian, Independent, Mask, Uniform
from reversal.spaces import SO3, Categorical, Euclidean, Torus

SPACES: dict[str, type[Any]] = {s.__name__: s for s in (Euclidean, Categorical, Torus, SO3)}
PROCESSES: dict[str, type[Any]] = {p.__name__: p for p in (Gaussian, Mask, Uniform, Brownian)}
NETWORKS: dict[str, type[Architecture]] = {n.__name__: n for n in (Perceptron, Transformer)}
_LAWS = (SharedClock, FactorClocks, SiteClocks, OneSite)
CLOCKS: dict[str, type[Any]] = {c.__name__: c for c in (*_LAWS, LowDiscrepancy, OnGrid)}


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
    if vars(schedules).get(type(schedule).__name__) is not type(schedule):
        raise CheckpointError(
            f"Expected a schedule of reversal.schedules to save, got {type(schedule).__name__}, "
            f"which has no text form. Save the weights of `model.denoiser_` on their own."
        )
    return {
        "type": kind,
        "space": _space_to_config(process.space),
        "schedule": {"type": type(schedule).__name__, **asdict(schedule)},
    }


def process_from_config(config: dict[str, Any]) -> Any:
    """Return the process that `process_to_config` described.

    Raises:
        CheckpointError: if it names what this version does not know.
    """
    if config["type"] == "Independent":
        return Independent({k: process_from_config(p) for k, p in config["factors"].items()})
    fields = dict(config["schedule"])
    schedule = _known(vars(schedules), fields.pop("type"))(**fields)
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
    kind = type(law).__name__
    if CLOCKS.get(kind) is not type(law):
        raise CheckpointError(
            f"Expected clocks among {listed(CLOCKS)} to save, got {kind}, which has no text form."
        )
    values = {field.name: getattr(law, field.name) for field in fields(law)}
    return {"type": kind} | {
        name: clocks_to_config(value) if is_dataclass(value) else value
        for name, value in values.items()
    }


def clocks_from_config(config: dict[str, Any]) -> Any:
    """Return the law that `clocks_to_config` described.

    Raises:
        CheckpointError: if it names what this version does not know.
    """
    values = {k: clocks_from_config(v) if isinstance(v, dict) else v for k, v in config.items()}
    return _known(CLOCKS, values.pop("type"))(**values)


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
