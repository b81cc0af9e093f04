"""Whether two objects were defined alike: what they are and all that they hold."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, final

import numpy as np
import torch
from torch import Tensor


def is_same(one: Any, other: Any) -> bool:
    """Tell whether two objects have one definition, compared part by part.

    Objects are of one type and hold the same attributes, but for properties that are kept once
    computed; tensors have one dtype and the same numbers; functions the same code, defaults and
    captured values, in one module. What cannot be looked into is the same only as itself, so that
    the answer is never true of two that differ.
    """
    return _Comparison().same(one, other)


@final
class _Comparison:
    """One comparison, which remembers the pairs that it has begun: objects may hold each other."""

    def __init__(self) -> None:
        self._begun: dict[tuple[int, int], tuple[Any, Any]] = {}

    def same(self, one: Any, other: Any) -> bool:
        if one is other:
            return True
        if type(one) is not type(other):
            return False
        pair = (id(one), id(other))
        if pair in self._begun:
            return True
        self._begun[pair] = (one, other)
        return self._look(one, other)

    def _look(self, one: Any, other: Any) -> bool:
        if isinstance(one, Tensor):
            alike = (one.dtype, one.shape, one.device) == (other.dtype, other.shape, other.device)
            return alike and torch.equal(one, other)
        if isinstance(one, np.ndarray):
            return one.dtype == other.dtype and np.array_equal(one, other)
        if isinstance(one, Mapping):
            return one.keys() == other.keys() and all(self.same(one[k], other[k]) for k in one)
        if isinstance(one, list | tuple):
            return len(one) == len(other) and all(map(self.same, one, other))
        held = [_held(item) for item in (one, other)]
        return one == other if held[0] is None else self.same(*held)


def _held(item: Any) -> list[Any] | dict[str, Any] | None:
    """What an object is made of; None for one that is only equal or not, such as a number."""
    if isinstance(item, FunctionType):
        cells = [cell.cell_contents for cell in item.__closure__ or ()]
        own = [item.__code__, id(item.__globals__)]
        return [*own, item.__defaults__, item.__kwdefaults__, cells]
    if isinstance(item, MethodType):
        return [item.__func__, item.__self__]
    if isinstance(item, partial):
        return [item.func, item.args, item.keywords]
    if isinstance(item, type | ModuleType) or not hasattr(item, "__dict__"):
        return None
    kind = type(item)
    return {
        name: value
        for name, value in vars(item).items()
        if not isinstance(getattr(kind, name, None), cached_property)
    }
