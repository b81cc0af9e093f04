"""What holds for every test: one thread per worker, and no trace left in the process.

Randomness comes from the arguments alone. A test that draws from a global generator, or leaves
another default dtype or thread count behind, fails and names what it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("fixed", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("fixed")

# What is watched: how to read it, and how to put it back.
GLOBALS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "the global torch generator": (torch.get_rng_state, torch.set_rng_state),
    "the global numpy generator": (np.random.get_state, np.random.set_state),
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "the deterministic mode": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail a test that changes a global setting, and put it back for the tests that follow."""
    before = {name: read() for name, (read, _) in GLOBALS.items()}
    yield
    changed = []
    for name, (read, restore) in GLOBALS.items():
        if comparable(read()) != comparable(before[name]):
            changed.append(name)
            restore(before[name])
    if changed:
        pytest.fail(
            f"expected a test that leaves no trace, but it changed {', '.join(changed)}: pass "
            "`generator=`, restore what you set, or ask for the fixture `global_seed` where torch "
            "takes no generator (initial weights, dropout)",
            pytrace=False,
        )


def comparable(value: Any) -> object:
    """Return a value in a form that `==` compares whole: arrays as bytes, tuples part by part."""
    if isinstance(value, tuple):
        return tuple(comparable(part) for part in value)
    return bytes(np.asarray(value)) if isinstance(value, torch.Tensor | np.ndarray) else value


@pytest.fixture
def global_seed(no_leaks: None) -> Iterator[None]:
    """Seed the global torch generator with 0 for one test, and put its state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
