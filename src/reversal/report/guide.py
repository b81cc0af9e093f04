"""The last section: what the figures mean, and what they do not."""

from __future__ import annotations

from reversal.report.blocks import Section, Table, Text

ROWS = (
    (
        "Floor",
        "The same figure for unseen real rows, in the same number. A model cannot be expected to "
        "be better; one that is at its floor is not told from reality by this figure.",
    ),
    (
        "Error of a column",
        "Numbers and dates: the Kolmogorov-Smirnov distance. Everything else: the total variation. "
        "1 minus sdmetrics' KSComplement and TVComplement. Gaps are compared apart.",
    ),
    (
        "Error of a pair",
        "Two numbers: half the difference of Pearson's correlations. Otherwise: the total "
        "variation of the cross tables, a gap being a value and numbers cut into ten bins of the "
        "real table. 1 minus sdmetrics' CorrelationSimilarity and ContingencySimilarity.",
    ),
    (
        "AUC",
        "The probability that a classifier ranks a row of one kind above one of the other: 0.5 is "
        "a coin, 1 never fails. Cross-validated three-fold; intervals by DeLong, widened for folds "
        "that share rows.",
    ),
    (
        "Interval",
        "In brackets. If everything were repeated with other rows of the same kind, 95 of 100 such "
        "intervals would hold the true figure. A difference within it may be chance.",
    ),
    (
        "Nearest record",
        "Distances between ranks of numbers and between categories. A model that copies has "
        "shorter distances than unseen real rows; longer ones are no proof of privacy.",
    ),
    (
        "Gaps",
        "Missing entries are drawn column by column as often as they were seen. Where gaps of "
        "several columns go together in reality, they do not here. Imputation takes it that gaps "
        "do not depend on what is missing.",
    ),
)


def section() -> Section:
    """Return how the figures are to be read."""
    words = (
        "The words of the summary follow fixed rules: good means at the floor or hardly above it, "
        "fair means a difference that can be measured and is small, poor means one that a user "
        "will meet. The figures decide, not the words."
    )
    table = Table("What the figures mean", ("Figure", "Meaning"), ROWS)
    return Section("guide", "How to read this", [Text(words), table])
