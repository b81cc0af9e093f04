"""Arguments that are numbers, looked at before any work; a wrong one is named in a sentence."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from reversal.errors import DataError, listed
from reversal.networks import Perceptron

MOST_SEED = 2**62 - 1
"""The greatest seed: one that leaves room for what is added to it."""


def checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a model in plain types, whatever kind of numbers they are.

    Raises:
        DataError: if one is out of its range.
    """
    own, first = settings.get("network"), asdict(Perceptron())
    if own is not None and any(settings[name] != value for name, value in first.items()):
        raise DataError(
            f"Expected the size of one network, got network={own['type']} beside {listed(first)}. "
            f"Say hidden_features, num_blocks and dropout to the network alone."
        )
    given, minutes, steps = dict(settings), settings["minutes"], settings["steps"]
    given |= {"minutes": None if minutes is None else positive("minutes", minutes)}
    given |= {"steps": None if steps is None else whole("steps", steps, 1)}
    given |= size(settings) | {"network": None if own is None else own | size(own)}
    given["learning_rate"] = positive("learning_rate", settings["learning_rate"])
    given["seed"] = whole("seed", settings["seed"], 0, MOST_SEED)
    return given


def size(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size of a network in plain types.

    Raises:
        DataError: if a number is out of its range.
    """
    width, dropout = whole("hidden_features", network["hidden_features"], 1), network["dropout"]
    plain: dict[str, Any] = {
        "hidden_features": width,
        "num_blocks": whole("num_blocks", network["num_blocks"], 0),
        "dropout": None if dropout is None else share("dropout", dropout),
    }
    if "num_heads" in network:
        plain["num_heads"] = heads = whole("num_heads", network["num_heads"], 1)
        if width % heads:
            raise DataError(
                f"Expected heads that share the width, got num_heads={heads} and "
                f"hidden_features={width}. Choose a width that is a multiple of num_heads."
            )
    return plain


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return a whole number between two ends.

    Raises:
        DataError: if it is none, or lies outside.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        ends = f"{name} >= {least}" + ("" if most is None else f" and <= {most}")
        raise DataError(
            f"Expected a whole number {ends}, got {name}={value!r}. Choose another {name}."
        )
    return number


def positive(name: str, value: Any) -> float:
    """Return a number above 0.

    Raises:
        DataError: if it is none, or not finite.
    """
    if not _is_number(value) or not 0 < value < math.inf:
        raise DataError(f"Expected {name} > 0, got {value!r}. Give a number above 0.")
    return float(value)


def share(name: str, value: Any) -> float:
    """Return a number from 0 to below 1.

    Raises:
        DataError: if it is none.
    """
    if not _is_number(value) or not 0 <= value < 1:
        raise DataError(f"Expected 0 <= {name} < 1, got {value!r}. Give a share.")
    return float(value)


def _is_number(value: Any) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, str | bytes)
