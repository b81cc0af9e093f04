r"""UniPC: a multistep predictor whose state is corrected once its estimate is known, for one call.

The step from r to t, taken by a polynomial through the clean estimates before t, is taken again
with the estimate at t as one more node; the next step starts from there. A single node takes
:math:`m_1 = 1/2`, which is the choice :math:`B(h) = e^h - 1` of the authors; with more nodes B
cancels. Source: Zhao et al. (2023), Algorithms 1 and 2 for data prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from reversal.core import Capability, Kind, Path
from reversal.errors import CapabilityError
from reversal.noise import Randomness
from reversal.processes import Gaussian
from reversal.samplers.leaning import Leaning, Look, lean
from reversal.samplers.needs import require


@final
@dataclass(unsafe_hash=True)
class UniPC(Leaning):
    """One call per step along the probability flow, order p + 1 on Gaussian factors.

    The corrector gains one order over the predictor's p. Other real factors step as
    ``Ancestral(eta=0)``, finite sets as ``Ancestral()``. The first steps are of lower order: orders
    above 3 show where the grid starts with short steps. ``on_step`` shows the predicted states. For
    the memory see ``Leaning``.

    Args:
        order: p, from 1 to 3.

    Cost: one network call per step, and the memory of p estimates and states.
    """

    order: int = 2

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise CapabilityError(f"Expected order 1, 2 or 3, got {self.order!r}. Choose 2.")

    @property
    def depth(self) -> int:
        """As many looks as the order."""
        return self.order

    def check(self, path: Path) -> None:
        """A bridge."""
        require(self, path, {Capability.BRIDGE}, "Use Heun(), which follows a velocity.")

    def settle(self, path: Any, now: Look, *past: Look) -> Look:
        """Take the last step again, with the estimate at its end."""
        last, *older = past
        if not isinstance(path, Gaussian) or last.x.shape != now.x.shape:
            return now
        leaning = lean(Kind.CLEAN, True, path, now.time, last, tuple(older), now)
        return now._replace(x=path.ancestor(last.x, last.time, now.time, leaning, 0.0).mean)

    def move(self, generator: Randomness, path: Any, s: Any, now: Look, *past: Look) -> Tensor:
        """Predict from the corrected state."""
        leaning = lean(Kind.CLEAN, True, path, s, now, past[: self.order - 1])
        eta = 0.0 if path.space.is_real else 1.0
        return path.ancestor(now.x, now.time, s, leaning, eta).sample(generator)
