"""The conformance suite: one line checks any space, process or sampler, ours or yours.

``check_process(MyProcess(...))`` raises ``AssertionError`` with a sentence that says which identity
failed, at which t and by how much.
"""

from reversal.testing.comparison import require_close
from reversal.testing.processes import check_process
from reversal.testing.samplers import check_sampler
from reversal.testing.spaces import check_space
from reversal.testing.statistics import (
    FAILURE_RATE,
    require_frequencies,
    require_mean,
    require_uniform,
)

__all__ = [
    "FAILURE_RATE", "check_process", "check_sampler", "check_space", "require_close",
    "require_frequencies", "require_mean", "require_uniform",
]  # fmt: skip
