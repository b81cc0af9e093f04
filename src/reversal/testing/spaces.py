"""What a space must satisfy: its shapes, what lies in it, its clocks, and how one walks in it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reversal import noise, state
from reversal.core import Space
from reversal.errors import ClockError, SpaceError
from reversal.testing.comparison import require, require_close
from reversal.testing.trial import draw_states

_BATCH = 5


def check_space(space: Space, *, seed: int = 0) -> None:
    """Check a space, factor by factor on a product.

    Sites lead the event and the tangent shape; examples and walks stay in the space; states of
    another shape, dtype or with NaN are refused; clocks are aligned or refused. A walk along 0 goes
    nowhere, along v and then -v comes back, and in two halves arrives where the whole does
    (directions are those of a frame that is carried along). A finite set refuses to be walked in.

    Raises:
        AssertionError: saying what failed and by how much.
    """
    generator = torch.Generator().manual_seed(seed)
    shown = torch.empty((), dtype=torch.float64)
    examples = space.example(_BATCH, shown)
    for x in (examples, draw_states(space, _BATCH, generator)):
        space.check(x)
        require(
            bool(space.contains(x).all()) and space.contains(x).shape == (_BATCH,),
            f"{space}: contains(x) should be True of shape ({_BATCH},) for its own states.",
        )
    for part in state.leaves(space.parts):
        _check_shapes(part)
        _check_refusals(part, shown)
        if part.is_real:
            _check_walks(part, generator, shown)
        else:
            _check_codes(part, shown)


def _check_shapes(part: Any) -> None:
    count = len(part.sites)
    require(
        part.event_shape[:count] == part.sites == part.tangent_shape[:count],
        f"{part}: expected its sites {part.sites} to lead its event shape {part.event_shape} and "
        f"its tangent shape {part.tangent_shape}.",
    )
    shared, own = (torch.full(shape, 0.5) for shape in ((_BATCH,), (_BATCH, *part.sites)))
    for clock in (shared, own):
        shape = part.align(clock).shape
        wanted = torch.broadcast_shapes(shape, (_BATCH, *part.sites))
        require(
            wanted == (_BATCH, *part.sites),
            f"{part}: a clock {tuple(clock.shape)} aligns to {tuple(shape)}, which does not "
            f"broadcast over the sites {part.sites}.",
        )
    for wrong in (torch.full((_BATCH, *part.sites, 2), 0.5), shared + 1, shared - 1):
        _require_refusal(part, part.align, wrong, ClockError)


def _check_refusals(part: Any, shown: Tensor) -> None:
    x = part.example(_BATCH, shown)
    wrong_dtype = x.long() if part.is_real else x.double()
    beyond = x * torch.nan if part.is_real else x + part.num_states
    for wrong in (x[0], x[..., None], wrong_dtype, beyond):
        _require_refusal(part, part.check, wrong, SpaceError)


def _check_codes(part: Any, shown: Tensor) -> None:
    x = part.example(_BATCH, shown)
    _require_refusal(part, lambda v: part.move(x, v), x, SpaceError)
    _require_refusal(part, part.check, x - 1, SpaceError)


def _check_walks(part: Any, generator: torch.Generator, shown: Tensor) -> None:
    x = draw_states(part, _BATCH, generator)
    v = 0.7 * noise.normal((_BATCH, *part.tangent_shape), shown, generator)
    for sentence, got, expected in (
        ("move(x, 0) = x", part.move(x, 0 * v), x),
        ("move(move(x, v), -v) = x", part.move(part.move(x, v), -v), x),
        ("two halves make a whole walk", part.move(part.move(x, v / 2), v / 2), part.move(x, v)),
    ):
        require_close(sentence, _near(got, expected), expected, of=part)
    far = part.move(x, 100 * v)
    require(bool(part.contains(far).all()), f"{part}: a long walk leaves the space.")
    require(
        part.move(x.float(), v.float()).dtype == torch.float32,
        f"{part}: move should keep the dtype of its input, float32.",
    )


def _near(got: Tensor, expected: Tensor) -> Tensor:
    """The same state, on the side of a seam at 2 pi where the expected one is."""
    turns = torch.round((got - expected) / (2 * torch.pi))
    is_seam = (got - expected - 2 * torch.pi * turns).abs() < 1e-6
    return torch.where(is_seam & (turns.abs() == 1), got - 2 * torch.pi * turns, got)


def _require_refusal(part: Any, function: Any, value: Tensor, error: type[Exception]) -> None:
    try:
        function(value)
    except error as refusal:
        require(len(str(refusal)) > 20, f"{part}: a refusal should say expected, got and cure.")
        return
    raise AssertionError(
        f"{part}: expected {error.__name__} for a value of shape {tuple(value.shape)} and "
        f"{value.dtype}, but it was accepted."
    )
