"""Numbers as a reader meets them: few digits, an interval in brackets, a word for the unknown."""

from __future__ import annotations

import math

from reversal.metrics import Estimate, Share

UNKNOWN = "not known"
THIN = "\u00a0"  # a blank at which no line breaks


def percent(value: float) -> str:
    """Return a share in percent with two digits below 10: ``0.78 %``, ``93 %``."""
    if math.isnan(value):
        return UNKNOWN
    scaled = 100 * value
    return f"{scaled:.2f}{THIN}%" if abs(scaled) < 9.995 else f"{scaled:.1f}{THIN}%"


def number(value: float) -> str:
    """Return a number with three digits that count."""
    if math.isnan(value):
        return UNKNOWN
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def decimal(value: float) -> str:
    """Return a score between 0 and 1 with three decimals."""
    return UNKNOWN if math.isnan(value) else f"{value:.3f}"


def nats(value: float) -> str:
    """Return a log-density with one decimal."""
    return UNKNOWN if math.isnan(value) else f"{value:.1f}"


def association(value: float) -> str:
    """Return a correlation with two decimals."""
    return UNKNOWN if math.isnan(value) else f"{value:.2f}"


def between(estimate: Estimate) -> str:
    """Return a score with its interval: ``0.742 (0.734 to 0.750)``."""
    if math.isnan(estimate.value):
        return UNKNOWN
    value, low, high = map(decimal, estimate)
    return f"{value} ({low} to {high})"


def of_share(share: Share) -> str:
    """Return a share with its interval: ``90.1 % (88.2 to 91.7 %)``."""
    if not share.total:
        return UNKNOWN
    low, high = share.interval()
    return f"{100 * share.value:.1f}{THIN}% ({100 * low:.1f} to {100 * high:.1f}{THIN}%)"


def count(total: int, noun: str) -> str:
    """Return a number of things: ``1 row``, ``2,000 rows``."""
    return f"{total:,} {noun}{'' if total == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time as a person says it: ``48 s``, ``3 min 24 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def some(names: list[str], most: int = 8) -> str:
    """Return names joined by commas, the rest as a number."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
