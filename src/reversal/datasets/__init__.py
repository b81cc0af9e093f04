"""Real data in the package: small, free, and each with its source in ``SOURCE.md``."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["penguins"]


def penguins() -> pd.DataFrame:
    """Return the Palmer penguins: 344 rows of 8 mixed columns, with gaps.

    Source: Horst, Hill and Gorman (2020), CC0.
    """
    import pandas as pd

    with (files(__name__) / "penguins.csv").open("rb") as file:
        return pd.read_csv(file)
