r"""Predictor and corrector: a step of any sampler from t to s, then Langevin steps at s.

The corrector forgets the predictor's error: what it settles to is q_s, up to its own step and the
error of the score. Source: Song et al. (2021), Algorithm 1; on finite sets Campbell et al. (2022),
section 4.2.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import Any, final

from reversal.core import Denoiser, Path, Sampler
from reversal.errors import CapabilityError
from reversal.noise import Randomness
from reversal.samplers.ancestral import Ancestral
from reversal.samplers.correction import check_corrector, correct
from reversal.state import Tree


@final
@dataclass(unsafe_hash=True)
class PredictorCorrector(Sampler):
    """A predictor's step, then corrections at the time where it ends; none at 0.

    Args:
        predictor: any sampler.
        corrections: how many a step.
        size: the pseudo-time of one, in units of the generator's own time over the step.

    Cost: the predictor's calls, and one for each correction.
    """

    predictor: Sampler = field(default_factory=Ancestral)
    corrections: int = 1
    size: float = 0.5

    def __post_init__(self) -> None:
        check_settings(self, self.corrections, self.size)
        if not isinstance(self.predictor, Sampler):
            raise CapabilityError(
                f"Expected a sampler for a predictor, got {self.predictor!r}. Write "
                f"PredictorCorrector(Ancestral())."
            )

    def __copy__(self) -> PredictorCorrector:
        """A walk has a predictor of its own, whose memory no other walk shares."""
        return PredictorCorrector(copy(self.predictor), self.corrections, self.size)

    def check(self, path: Path) -> None:
        """What the predictor needs, and a generator."""
        self.predictor.check(path)
        check_corrector(self, path)

    def advance(
        self,
        denoiser: Denoiser,
        x_t: Any,
        t: Any,
        s: Any,
        cond: Any,
        stop: Tree,
        generator: Randomness,
    ) -> Any:
        """Predict, then correct."""
        x = self.predictor.step(denoiser, x_t, t, s, cond, stop, generator)
        return correct(denoiser, x, t, s, cond, stop, generator, self.corrections, self.size)


def check_settings(sampler: object, corrections: Any, size: float) -> None:
    """Raise ``CapabilityError`` unless there is at least one correction of a positive size."""
    if not (isinstance(corrections, int) and corrections >= 1 and size > 0):
        raise CapabilityError(
            f"Expected at least one correction, of a size > 0, got {sampler}. Leave them out for "
            f"the defaults."
        )
