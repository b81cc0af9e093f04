"""States are tensors ``(B, *E)``, or named dicts of them on a product; this is the only tree code.

A *tree* is anything shaped like a state: times, masks, scores, generators, estimates. What is not
a mapping is shared by every factor, so ``map(f, state, t)`` serves a common clock and one clock per
factor alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from reversal.errors import SpaceError, listed

State = Tensor | Mapping[str, Tensor]
Tree = Any


_BRANCHES: dict[type, bool] = {}


def branches(tree: Tree) -> bool:
    """Tell whether a tree has factors; kept by type, for every step asks this often."""
    kind = type(tree)
    if kind not in _BRANCHES:
        _BRANCHES[kind] = issubclass(kind, Mapping)
    return _BRANCHES[kind]


def map(function: Callable[..., Any], first: Tree, *rest: Tree) -> Tree:
    """Apply ``function`` factor by factor; the factors and their order are those of ``first``."""
    if not (_BRANCHES[type(first)] if type(first) in _BRANCHES else branches(first)):
        return function(first, *rest)
    return {name: function(part, *(take(r, name) for r in rest)) for name, part in first.items()}


def take(tree: Tree, name: str) -> Tree:
    """Return factor ``name`` of a tree; what is shared by all factors is returned as it is."""
    if not branches(tree):
        return tree
    if name not in tree:
        raise SpaceError(
            f"Expected one part per factor, got {listed(tree)} without `{name}`. Add it."
        )
    return tree[name]


def complete(tree: Tree, names: Iterable[str]) -> Tree:
    """Put None for the factors that a mapping leaves out; anything else is returned as it is."""
    return {**dict.fromkeys(names), **tree} if isinstance(tree, Mapping) else tree


def leaves(tree: Tree) -> Iterator[Any]:
    """Yield the parts of a tree, in the order of its factors."""
    if branches(tree):
        yield from tree.values()
    else:
        yield tree


def total(tree: Tree) -> Any:
    """Sum the parts of a tree: what is additive over the factors of a product."""
    parts = leaves(tree)
    result = next(parts)
    for part in parts:
        result = result + part
    return result


def batch_size(x: State) -> int:
    """Return B, the length of the leading dimension of a state."""
    return len(x) if isinstance(x, Tensor) else len(next(leaves(x)))


def like(x: State) -> Tensor:
    """Return a tensor that shows the device and the real dtype of a state."""
    if isinstance(x, Tensor):
        return x if x.is_floating_point() else x.float()
    parts = list(leaves(x))
    return next((part for part in parts if part.is_floating_point()), parts[0].float())


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested mappings, in order: ``{"a": {"b": x}}`` becomes ``{"a.b": x}``."""
    flat: dict[str, Any] = {}
    for name, part in tree.items():
        if isinstance(part, Mapping):
            flat.update({f"{name}.{inner}": leaf for inner, leaf in flatten(part).items()})
        else:
            flat[name] = part
    return flat


def trail(coefficient: float | Tensor, dims: int) -> Any:
    """Give a coefficient ``dims`` trailing dimensions; a Python number needs none."""
    if dims == 0 or not isinstance(coefficient, Tensor):
        return coefficient
    return coefficient[(...,) + (None,) * dims]


def sum_sites(values: Tensor) -> Tensor:
    """Sum ``(B, *sites)`` over its sites: ``(B,)``."""
    return values.flatten(1).sum(1) if values.ndim > 1 else values


def hold(mask: Tensor | bool | None, old: Tensor, new: Tensor, sites: int) -> Tensor:
    """Keep ``old`` where ``mask`` is set, bit for bit.

    Args:
        mask: bool of shape ``sites`` or ``(B, *sites)``; None holds nothing, True everything.
        old: tensor ``(B, *sites, *rest)``.
        new: tensor of the same shape.
        sites: the number of site dimensions.
    """
    if mask is None or mask is False:
        return new
    if mask is True:
        return old
    return torch.where(trail(mask, old.ndim - 1 - sites), old, new)
