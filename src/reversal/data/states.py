r"""Arrays by name as states of a product: real factors are standardized, one affine map each.

.. math:: z = (x - m) / s, \qquad \log p(x) = \log p(z) - d \log s ,

with m and s the mean and the standard deviation of all entries of the factor. What comes back has
the caller's scale, shape and dtype. A NaN is a gap, and so is -1 among codes. In the place of codes
there may be labels, text or objects of one type of which None is a gap: they come back as such.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from reversal.data.array_form import ArrayForm, check_numbers
from reversal.data.arrays import LARGEST
from reversal.data.conditions import Condition
from reversal.data.frames import near
from reversal.data.labels import Category, Discrete
from reversal.data.levels import Levels
from reversal.data.pictures import FACTOR
from reversal.data.scales import CodeScale
from reversal.data.source import Encoded, Source, State, Target, by_name, required
from reversal.data.space_text import space_text
from reversal.errors import DataError, listed
from reversal.restrictions import InCodes, Restriction, Site
from reversal.restrictions.allowed import Codes
from reversal.spaces import Categorical, Euclidean, Product


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
        return cls(space, forms, is_plain)

    @property
    def space(self) -> Product:
        """The product that was given."""
        return self.product

    @property
    def is_pictures(self) -> bool:
        """Whether a factor is an image of 8-bit numbers, which a PNG file holds, others a cell."""
        forms, parts = dict(self.forms), self.product.parts
        image = forms.pop(FACTOR, None)
        if image is None or image.dtype != "uint8" or any(form.shape for form in forms.values()):
            return False
        shape: tuple[int, ...] = parts[FACTOR].event_shape
        return len(shape) == 3 and shape[0] <= 4

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
        self.product.check(state, "data")
        return Encoded(state, present)

    def decode(self, state: State, seed: int | None = None, conditions: Any = None) -> Any:
        if seed is not None:
            raise DataError("Expected no gaps to be asked of arrays; only tables write them.")
        arrays = {name: self._write(name, state[name]) for name in self._parts}
        return arrays["x"] if self.is_plain else arrays

    def given(self, conditions: Any, n: int) -> dict[str, tuple[Tensor, Tensor]]:
        conditions = self._by_factor(conditions)
        _check_names(conditions, self.product)
        sets = self._sets(conditions)
        read: dict[str, tuple[Tensor, Tensor]] = {}
        for name, condition in conditions.items():
            if name in sets:
                continue
            array, known = self._condition(name, condition, n)
            value, seen = self._read(name, array)
            mask = torch.from_numpy(known).expand(
                max(len(value), len(known)), *self._parts[name].sites
            )
            if not bool((seen | ~mask).all()):
                raise DataError(
                    f"Expected a value wherever {name!r} is known in `given`, got a gap. "
                    f"Pass ({name}, known) with known False there."
                )
            read[name] = (value, mask)
        return read

    def restrictions(self, conditions: Any) -> tuple[Restriction, ...]:
        found = self._sets(self._by_factor(conditions)).items()
        return tuple(
            InCodes(Site(name, ()), torch.tensor(allowed.members))
            for name, allowed in found
            if not allowed.is_everything
        )

    def events(self, conditions: Any) -> tuple[tuple[Restriction, ...], dict[str, Any]]:
        return (), {}

    def write_given(self, samples: Any, conditions: Any) -> Any:
        named = {"x": samples} if self.is_plain else dict(samples)
        conditions = self._by_factor(conditions)
        for name, condition in conditions.items():
            if name in self._sets(conditions):
                continue
            drawn = named[name]
            values, known = self._condition(name, condition, len(drawn))
            named[name] = np.where(self._event_mask(name, known), values, drawn).astype(drawn.dtype)
        return named["x"] if self.is_plain else named

    def complete(
        self, data: Any, states: list[State], present: dict[str, Tensor], first: int = 0
    ) -> Any:
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

    def space_yaml(self) -> str:
        return space_text(self.product)

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
            return _codes(name, form.codes(name, shaped) if form.labels else shaped)
        check_numbers(name, array)
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
        if form.labels:
            return form.labelled(array)
        if isinstance(self._parts[name], Euclidean):
            array = (array.astype(np.float64) * form.scale + form.mean).clip(form.low, form.high)
            limit = LARGEST if form.dtype[0] != "f" else float(np.finfo(form.dtype).max)
            array = array.clip(-limit, limit)
        dtype = np.dtype(form.dtype if self._parts[name].is_real else np.int64)
        return (np.rint(array) if dtype.kind in "iu" else array).astype(dtype)

    def _event_mask(self, name: str, mask: np.ndarray) -> np.ndarray:
        """Return a mask ``(B, *sites)`` as one over the caller's shape."""
        part, form = self._parts[name], self.forms[name]
        lift = len(part.event_shape) - len(part.sites)
        rows = np.broadcast_to(mask[(...,) + (None,) * lift], (len(mask), *part.event_shape))
        return rows.reshape(len(rows), *form.shape)

    def _by_factor(self, conditions: Any) -> Mapping[str, Any]:
        """Return conditions by name; on a plain space they need none."""
        if self.is_plain and not isinstance(conditions, Mapping):
            return {"x": conditions}
        return by_name(conditions)

    def _sets(self, conditions: Mapping[str, Any]) -> dict[str, Codes]:
        """Return the factors of one categorical site that conditions are on, and their sets."""
        found: dict[str, Codes] = {}
        for name, condition in conditions.items():
            part = self._parts.get(name)
            if not isinstance(part, Categorical) or part.event_shape != ():
                continue
            if isinstance(condition, Condition):
                labels = self.forms[name].labels or tuple(range(part.num_values))
                found[name] = CodeScale(_discrete(name, labels)).resolve(condition)
        return found

    def _condition(self, name: str, condition: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return values ``(1 or n, *shape)``, and which of their sites ``(1 or n, *sites)`` hold.

        Raises:
            DataError: unless it is values, or a tuple of values and a mask, of known shapes.
        """
        values, known = _pair(name, condition)
        array, form = _array(name, values), self.forms[name]
        array = form.labelled(form.codes(name, array)) if form.labels else array
        shape = form.shape
        rows = array[None] if array.shape == shape else array
        if rows.shape[1:] != shape or len(rows) not in (1, n):
            raise DataError(
                f"Expected {name!r} in `given` to have shape {shape} or {(n, *shape)}, got "
                f"{array.shape}. Give one value, or one per sample."
            )
        mask, part = _array(name, known), self._parts[name]
        lift = len(part.event_shape) - len(part.sites)
        for own in (part.sites, part.event_shape, shape, ()) if mask.dtype.kind in "biu" else ():
            if mask.shape in (own, (1, *own), (n, *own)):
                mask = (mask if mask.ndim > len(own) else mask[None]) != 0
                if own == ():
                    return rows, mask.reshape(len(mask), *[1] * len(part.sites))
                if own == part.sites or not lift:
                    return rows, mask.reshape(len(mask), *part.sites)
                whole = mask.reshape(len(mask), *part.event_shape)
                return rows, whole.all(tuple(range(-lift, 0)))
        raise DataError(
            f"Expected what is known of {name!r} in `given` to be booleans of shape {part.sites} "
            f"or {(n, *part.sites)}, got {mask.dtype} of shape {mask.shape}. "
            f"Pass (values, known) with one boolean per site."
        )


def _discrete(name: str, labels: tuple[Any, ...]) -> Discrete:
    """Return labels of one type as a column: a range of whole numbers may end between them."""
    kinds = set(map(type, labels))
    if kinds == {int}:
        return Levels(name, 0.0, labels)
    return Category(name, 0.0, categories=labels, kind=Category.KINDS[kinds == {bool}])


def _pair(name: str, condition: Any) -> tuple[Any, Any]:
    """Return values and what is known of them."""
    if isinstance(condition, Condition):
        raise DataError(
            f"Expected values of {name!r}, got {condition}, asked of columns and of factors of one "
            f"categorical site. Give values, or fit a table."
        )
    is_pair = isinstance(condition, list) and len(condition) == 2
    is_masked = is_pair and str(getattr(condition[1], "dtype", "")).endswith("bool")
    if is_masked or (isinstance(condition, tuple) and len(condition) != 2):
        got = "a list" if is_masked else f"{len(condition)} entries"
        raise DataError(f"Expected a tuple (values, known) for {name!r}, got {got}. Write it so.")
    return condition if isinstance(condition, tuple) else (condition, True)


def _array(name: str, values: Any) -> np.ndarray:
    try:
        if isinstance(values, Tensor):
            return values.detach().cpu().numpy()
        array = np.asarray(values)
        is_spelled = array.dtype.kind == "U" and not hasattr(values, "dtype")
        return np.asarray(values, object) if is_spelled else array  # 1 is not "1", as NumPy has it
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Expected an array for {name!r}, got {type(values).__name__}: {error}. "
            f"Give rows of one shape, of a type that NumPy has."
        ) from error


def _arrays(data: Any, is_plain: bool) -> dict[str, np.ndarray]:
    if is_plain and not isinstance(data, Mapping):
        return {"x": _array("x", data)}
    if not isinstance(data, Mapping):
        raise DataError(
            f"Expected a dict of arrays by factor, got {type(data).__name__}. "
            f'Write {{"image": images, "label": labels}}.'
        )
    return {name: _array(name, values) for name, values in data.items()}


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
    if array.size and not -1 <= array.min() <= array.max() < 2**63:
        wrong = array.min() if array.min() < -1 else array.max()
        raise DataError(
            f"Expected codes from 0 in {name!r}, or -1 for a gap, got {wrong}. Number the classes "
            f"from 0."
        )
    codes = torch.from_numpy(array.astype(np.int64))
    return codes.clamp_min(0), codes >= 0


def _over(mask: Tensor, value: Tensor) -> Tensor:
    return mask[(...,) + (None,) * (value.ndim - mask.ndim)]
