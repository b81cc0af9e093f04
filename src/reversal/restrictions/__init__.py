"""Sites restricted to sets: draws from a truncated joint law, with its probability."""

from reversal.restrictions.allowed import Codes, Intervals
from reversal.restrictions.context import Context, Site
from reversal.restrictions.flow import SiteFlow
from reversal.restrictions.restriction import InCodes, InIntervals, Restriction, is_sure
from reversal.restrictions.sequential import Evidence, restricted

__all__ = [
    "Codes", "Context", "Evidence", "InCodes", "InIntervals", "Intervals", "Restriction", "Site",
    "SiteFlow", "is_sure", "restricted",
]  # fmt: skip
