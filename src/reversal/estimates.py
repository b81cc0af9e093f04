"""Estimates: what a denoiser says at (x_t, t), converted on request by the path's directed table.

By Fisher's identity every kind is the posterior expectation of a conditional quantity, so kinds
that are affine in one another given x_t convert exactly; the table of a path lists those pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, final

from torch import Tensor

from reversal.errors import CapabilityError, listed

if TYPE_CHECKING:
    from reversal.core import Path


class Kind(StrEnum):
    """What a denoiser predicts: each is a posterior expectation of a conditional quantity."""

    CLEAN = "clean"
    NOISE = "noise"
    VELOCITY = "velocity"
    SCORE = "score"
    POSTERIOR = "posterior"
    CAVITY = "cavity"


@final
class Estimate:
    """What a denoiser says about one factor at (x_t, t); immutable, converted on request.

    ``beside`` is a second estimate, of what the first does not convert to.
    """

    __slots__ = ("beside", "kind", "path", "t", "value", "x_t")

    def __init__(
        self,
        path: Path,
        x_t: Tensor,
        t: Any,
        kind: Kind,
        value: Tensor,
        beside: Estimate | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "path", path)
        put(self, "x_t", x_t)
        put(self, "t", t)
        put(self, "kind", kind)
        put(self, "value", value)
        put(self, "beside", beside)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"Expected no change of an estimate, got {name} = .... Make a new one."
        )

    def to(self, kind: Any) -> Estimate:
        """Convert by the path's directed table; ``kind`` is a ``Kind`` or has one."""
        return Estimate(
            self.path,
            self.x_t,
            self.t,
            wanted := Kind(getattr(kind, "kind", kind)),
            self.read(wanted),
            None if self.beside is None else self,
        )

    def read(self, kind: Kind) -> Tensor:
        """Return the value as another kind.

        Raises:
            CapabilityError: if the path's table has no such conversion.
        """
        if kind is self.kind:
            return self.value
        rule = self.path.conversion(self.kind, kind)
        if rule is None and self.beside is not None:
            return self.beside.read(kind)
        if rule is None:
            reach = [other for other in Kind if self.path.conversion(self.kind, other)]
            raise CapabilityError(
                f"Expected a conversion from {self.kind} to {kind} under {self.path}, but there is "
                f"none: from {self.kind} it reaches {listed(reach)}. Train a denoiser that outputs "
                f"{kind}, or ask for one of those."
            )
        return rule(self.value, self.x_t, self.t)

    score = property(lambda self: self.read(Kind.SCORE))
    clean = property(lambda self: self.read(Kind.CLEAN))
    noise = property(lambda self: self.read(Kind.NOISE))
    velocity = property(lambda self: self.read(Kind.VELOCITY))
    posterior = property(lambda self: self.read(Kind.POSTERIOR))
    cavity = property(lambda self: self.read(Kind.CAVITY))


@final
@dataclass(frozen=True)
class JointEstimate(Mapping[str, Estimate]):
    """The estimates of a product, by factor; ``.score`` and its kin are dicts."""

    parts: dict[str, Estimate]

    def __getitem__(self, name: str) -> Estimate:
        return self.parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def to(self, kind: Any) -> JointEstimate:
        """Convert every factor."""
        return JointEstimate({name: part.to(kind) for name, part in self.parts.items()})

    def __getattr__(self, kind: str) -> dict[str, Tensor]:
        if kind not in Kind.__members__.values():
            raise AttributeError(kind)
        return {name: part.read(Kind(kind)) for name, part in self.parts.items()}
