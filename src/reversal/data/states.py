r"""Arrays by name as states of a product: real factors are standardized, one affine map each.

.. math:: z = (x - m) / s, \qquad \log p(x) = \log p(z) - d \log s ,

with m and s the mean and the standard deviation of all entries of the factor. What comes back has
the caller's scale, shape and dtype. A NaN is a gap, and so is -1 among codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from reversal.data.frames import near
from reversal.data.source import Encoded, Source, State, Target, required
from reversal.errors import DataError, listed
from reversal.spaces import Categorical, Euclidean, Product


@final
@dataclass(frozen=True)
class ArrayForm:
    """What one array looks like: its shape beyond the batch, dtype, and affine map."""

    shape: tuple[int, ...]
    dtype: str
    mean: float = 0.0
    scale: float = 1.0
    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def of(cls, name: str, array: np.ndarray, space: Any) -> ArrayForm:
        """Return the form that an array shows; the range matters to integers alone."""
        if not isinstance(space, Euclidean):
            return cls(array.shape[1:], str(array.dtype))
        seen = array[np.isfinite(array)].astype(np.float64)
        if seen.size == 0 or not seen.std() > 0:
            raise DataError(
                f"Expected numbers that vary in {name!r}, got one value everywhere. "
                f"There is nothing to learn in it: leave it out."
            )
        ends = (float(seen.min()), float(seen.max())) if array.dtype.kind in "iu" else ()
        return cls(array.shape[1:], str(array.dtype), float(seen.mean()), float(seen.std()), *ends)

    def to_config(self) -> dict[str, Any]:
        """Return plain JSON types; an infinite end is left out."""
        fields = asdict(self) | {"shape": list(self.shape)}
        is_open = {"low": math.isinf(self.low), "high": math.isinf(self.high)}
        return {name: value for name, value in fields.items() if not is_open.get(name)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ArrayForm:
        """Return the form that `to_config` described."""
        return cls(**{**config, "shape": tuple(config["shape"])})


@final
@dataclass(frozen=True)
class StateSource(Source):
    """A dict of arrays, or one array on a plain space.

    Args:
        product: the space of the states.
        forms: what each array looks like.
        is_plain: whether the caller has one array and no names.
    """

    product: Product
    forms: dict[str, ArrayForm]
    is_plain: bool = False

    @classmethod
    def infer(cls, data: Any, space: Product, *, is_plain: bool) -> StateSource:
        """Return the source that arrays show.

        Raises:
            DataError: if factors are missing, unknown, of unequal length, or of fewer than 2 rows.
            SpaceError: if an array does not lie in its space.
        """
        arrays = _arrays(data, is_plain)
        absent = [name for name in space.parts if name not in arrays]
        if absent:
            raise DataError(
                f"Expected arrays for the factors {listed(space.parts)}, got none for "
                f"{listed(absent)}. Give one array per factor, with NaN or -1 for gaps."
            )
        _check_names(arrays, space)
        rows = _num_rows(arrays)
        if rows < 2:
            raise DataError(f"Expected at least two rows, got {rows}. Hand over more data.")
        forms = {k: ArrayForm.of(k, arrays[k], part) for k, part in space.parts.items()}
        source = cls(space, forms, is_plain)
        space.check(source.encode(data).state, "data")
        return source

    @property
    def space(self) -> Product:
        """The product that was given."""
        return self.product

    @cached_property
    def _parts(self) -> dict[str, Any]:
        return dict(self.product.parts)

    def encode(self, data: Any, seed: int = 0) -> Encoded:
        arrays = _arrays(data, self.is_plain)
        _check_names(arrays, self.product)
        rows = _num_rows(arrays)
        state: State = {}
        present: dict[str, Tensor] = {}
        for name, part in self._parts.items():
            blank = part.example(rows, torch.empty(()))
            state[name], present[name] = blank, torch.zeros((rows, *part.sites), dtype=torch.bool)
            if name in arrays:
                value, seen = self._read(name, arrays[name])
                seen = seen.expand(rows, *part.sites)
                present[name] = seen
                state[name] = torch.where(_over(seen, value), value, blank)
        return Encoded(state, present)

    def decode(self, state: State, seed: int | None = None) -> Any:
        if seed is not None:
            raise DataError("Expected no gaps to be asked of arrays; only tables write them.")
        arrays = {name: self._write(name, state[name]) for name in self._parts}
        return arrays["x"] if self.is_plain else arrays

    def given(self, conditions: Any, n: int) -> dict[str, tuple[Tensor, Tensor]]:
        if self.is_plain and not isinstance(conditions, Mapping):
            conditions = {"x": conditions}
        _check_names(conditions, self.product)
        read: dict[str, tuple[Tensor, Tensor]] = {}
        for name, condition in conditions.items():
            values, known = condition if isinstance(condition, tuple) else (condition, True)
            array, shape = _array(values), self.forms[name].shape
            array = array[None] if array.shape == shape else array
            if array.shape[1:] != shape or len(array) not in (1, n):
                raise DataError(
                    f"Expected {name!r} in `given` to have shape {shape} or {(n, *shape)}, got "
                    f"{_array(values).shape}. Give one value, or one per sample."
                )
            value, seen = self._read(name, array)
            sites = self._parts[name].sites
            mask = torch.as_tensor(_array(known), dtype=torch.bool)
            if mask.ndim:
                mask = mask.reshape(-1, *sites)
            mask = mask.expand(max(len(value), len(mask) if mask.ndim else 1), *sites)
            if not bool((seen | ~mask).all()):
                raise DataError(
                    f"Expected a value wherever {name!r} is known in `given`, got a gap. "
                    f"Pass ({name}, known) with known False there."
                )
            read[name] = (value, mask)
        return read

    def write_given(self, samples: Any, conditions: Any) -> Any:
        if self.is_plain and not isinstance(conditions, Mapping):
            conditions = {"x": conditions}
        named = {"x": samples} if self.is_plain else dict(samples)
        for name, condition in conditions.items():
            values, known = condition if isinstance(condition, tuple) else (condition, True)
            mask = self._event_mask(name, _array(known))
            named[name] = np.where(mask, _array(values), named[name]).astype(named[name].dtype)
        return named["x"] if self.is_plain else named

    def check_rows(self, data: Any) -> None:
        _check_names(_arrays(data, self.is_plain), self.product)

    def complete(self, data: Any, states: list[State], present: dict[str, Tensor]) -> Any:
        arrays = _arrays(data, self.is_plain)
        filled: dict[str, Any] = {}
        for name in self.forms:
            draws = np.stack([self._write(name, state[name]) for state in states])
            if name in arrays:
                mask = self._event_mask(name, present[name].numpy())
                own = arrays[name].reshape(draws.shape[1:])
                draws = np.where(mask, own, draws).astype(draws.dtype)
            filled[name] = draws
        return filled["x"] if self.is_plain else filled

    def without(self, data: Any, name: str) -> Any:
        return {k: array for k, array in _arrays(data, self.is_plain).items() if k != name}

    def target(self, name: str) -> Target:
        _check_names([name], self.product)
        part = self._parts[name]
        if not isinstance(part, Categorical) or part.sites:
            raise DataError(
                f"Expected a factor of one categorical site to predict, got {name!r} in {part}. "
                f"Use `sample(n, given=...)` for the others."
            )
        return Target(name, (), part.num_values)

    def probabilities(self, name: str, values: np.ndarray, data: Any) -> np.ndarray:
        return values

    def log_jacobian(self, encoded: Encoded) -> Tensor:
        total = torch.zeros(len(next(iter(encoded.state.values()))), dtype=torch.float64)
        for name, form in self.forms.items():
            counts = encoded.present[name][..., None].flatten(1).sum(1)
            total -= counts * math.log(form.scale)
        return total

    @property
    def measure(self) -> dict[str, str]:
        names = {Euclidean: "Lebesgue", Categorical: "counting"}
        return {k: names.get(type(p), "uniform probability") for k, p in self._parts.items()}

    def to_config(self) -> dict[str, Any]:
        forms = {name: form.to_config() for name, form in self.forms.items()}
        return {"type": "states", "forms": forms, "is_plain": self.is_plain}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], product: Product) -> StateSource:
        """Return the source that `to_config` described."""
        forms = {name: ArrayForm.from_config(form) for name, form in config["forms"].items()}
        return cls(product, forms, config["is_plain"])

    def _read(self, name: str, array: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the values ``(B, *E)`` of a factor, and which sites are present."""
        part, form = self._parts[name], self.forms[name]
        if math.prod(array.shape[1:]) != math.prod(part.event_shape):
            raise DataError(
                f"Expected {name!r} to have the shape {part.event_shape} per row, got "
                f"{array.shape[1:]}. Reshape it, or mend the space."
            )
        shaped = array.reshape(len(array), *part.event_shape)
        if not part.is_real:
            return _codes(name, shaped)
        scaled = (shaped.astype(np.float64) - form.mean) / form.scale
        if np.isinf(scaled).any():
            raise DataError(f"Expected finite numbers in {name!r}, got an infinity. Replace it.")
        value = torch.from_numpy(scaled.astype(np.float32))
        seen = ~value.isnan()
        lift = len(part.event_shape) - len(part.sites)
        return value.nan_to_num(0.0), seen.flatten(-lift).all(-1) if lift else seen

    def _write(self, name: str, value: Tensor) -> np.ndarray:
        form = self.forms[name]
        array = value.detach().cpu().numpy().reshape(len(value), *form.shape)
        if isinstance(self._parts[name], Euclidean):
            array = (array.astype(np.float64) * form.scale + form.mean).clip(form.low, form.high)
        dtype = np.dtype(form.dtype if self._parts[name].is_real else np.int64)
        return (np.rint(array) if dtype.kind in "iu" else array).astype(dtype)

    def _event_mask(self, name: str, mask: np.ndarray) -> np.ndarray:
        """Return a mask over sites or over the caller's shape as one that broadcasts over it."""
        part, form = self._parts[name], self.forms[name]
        if mask.ndim == 0:
            return mask
        lift = len(part.event_shape) - len(part.sites)
        rows = mask.reshape(-1, *part.sites)
        rows = np.broadcast_to(rows[(...,) + (None,) * lift], (len(rows), *part.event_shape))
        return rows.reshape(len(rows), *form.shape)


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _arrays(data: Any, is_plain: bool) -> dict[str, np.ndarray]:
    if is_plain and not isinstance(data, Mapping):
        return {"x": _array(data)}
    if not isinstance(data, Mapping):
        raise DataError(
            f"Expected a dict of arrays by factor, got {type(data).__name__}. "
            f'Write {{"image": images, "label": labels}}.'
        )
    return {name: _array(values) for name, values in data.items()}


def _num_rows(arrays: Mapping[str, np.ndarray]) -> int:
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(
            f"Expected arrays of one length, got {lengths}. Give one row per item in each of them."
        )
    return next(iter(lengths.values()))


def _check_names(names: Any, space: Product) -> None:
    for name in names:
        if name not in space.parts:
            raise DataError(
                f"Expected factors among {required(space.parts)}, got {name!r}; "
                f"{near(str(name), space.parts)}"
            )


def _codes(name: str, array: np.ndarray) -> tuple[Tensor, Tensor]:
    if array.dtype.kind not in "iub":
        raise DataError(
            f"Expected integer codes in {name!r}, got {array.dtype}. "
            f"Number the classes: `numpy.unique(values, return_inverse=True)`."
        )
    codes = torch.from_numpy(array.astype(np.int64))
    return codes.clamp_min(0), codes >= 0


def _over(mask: Tensor, value: Tensor) -> Tensor:
    return mask[(...,) + (None,) * (value.ndim - mask.ndim)]
