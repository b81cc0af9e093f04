"""The README's tables say what the code does."""

import re
from pathlib import Path

import pytest
import torch

import reversal as rv
from reversal import parametrizations, processes
from tests.example import example

README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
STEP = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
PATHS = {
    "Gaussian": [rv.Gaussian(rv.Euclidean(2))],
    "Mask": [rv.Mask(rv.Categorical(3))],
    "Uniform": [rv.Uniform(rv.Categorical(3))],
    "Brownian": [rv.Brownian(rv.Torus(2)), rv.Brownian(rv.SO3())],
    "Interpolant": [rv.Interpolant(rv.Euclidean(2), rv.Paired())],
    "BrownianBridge": [rv.BrownianBridge(rv.Euclidean(2), rv.Paired())],
    "Chain": [rv.Chain(rv.Categorical(3), [STEP, STEP])],
}


def rows(head):
    """Return the rows of the table whose head starts with a word, cells by column."""
    lines = README.split("\n")
    start = next(k for k, line in enumerate(lines) if line.startswith(f"| {head} |"))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return [dict(zip(table[0], row, strict=True)) for row in table[2:]]


def allowed(sampler, path):
    """Whether a sampler takes a path."""
    try:
        sampler.check(path)
    except rv.CapabilityError:
        return False
    return True


@pytest.mark.parametrize("row", rows("Process"), ids=lambda row: row["Process"])
def test_a_row_says_which_samplers_take_the_process(row):
    name = row["Process"].strip("`")
    if name in ("Independent", "FromGenerator"):
        return  # the first follows from its factors, the second has a test of its own
    for path in PATHS[name]:
        assert f"`{type(path.space).__name__}`" in row["Space"]
        euler = {True: "yes", False: "churn 0" if allowed(rv.Euler(0.0), path) else "no"}
        assert row["`Euler`"] == euler[allowed(rv.Euler(), path)]
        for sampler in (rv.Ancestral(), rv.Heun()):
            cell = row[f"`{type(sampler).__name__}`"]
            assert cell == ("yes" if allowed(sampler, path) else "no")
        assert row["`elbo`"] == ("yes" if bounded(path) else "no")


def test_a_generated_process_has_the_samplers_of_its_row():
    """Euler everywhere, Heun on jumps, no bridge; the bound without a kernel density alone."""
    row = next(row for row in rows("Process") if row["Process"] == "`FromGenerator`")
    cells = [row[f"`{name}`"] for name in ("Euler", "Ancestral", "Heun", "elbo")]
    assert cells == ["yes", "no", "on jumps", "`implicit_elbo`"]
    counts, polytope = (example(name).process() for name in ("birth_death", "reflected_polytope"))
    for path in (counts, polytope):
        assert allowed(rv.Euler(), path)
        assert not allowed(rv.Ancestral(), path)
        assert allowed(rv.Heun(), path) == (path is counts)
    x = polytope.prior.sample(2, torch.Generator().manual_seed(0))
    flat = rv.Energy(lambda y, t, cond: 0 * y.sum(1), polytope)
    source = torch.Generator().manual_seed(0)
    with pytest.raises(rv.CapabilityError, match="transition density"):
        rv.elbo(flat, x, num_samples=2, generator=source)
    found = rv.implicit_elbo(flat, x, num_samples=2, generator=source)
    assert torch.allclose(found.value, polytope.prior.log_prob(x).double())


def bounded(path):
    """Whether the exact denoiser of two data has a bound."""
    if type(path).__name__ in ("Interpolant", "BrownianBridge", "Chain"):
        return False
    atoms = path.space.example(2, torch.empty(()))
    rng = torch.Generator().manual_seed(0)
    return rv.elbo(rv.Empirical(path, atoms), atoms, num_samples=2, generator=rng).kind != ""


def test_every_process_and_parametrization_has_a_row():
    listed = {row["Process"].strip("`") for row in rows("Process")}
    found = {name: getattr(processes, name) for name in processes.__all__}
    assert listed == {name for name, kind in found.items() if issubclass(kind, rv.core.Path)}
    named = " ".join(row["Parametrization"] for row in rows("Parametrization"))
    leaves = {
        name for name in rv.__all__ if isinstance(getattr(parametrizations, name, None), type)
    }
    how = {n for n in leaves if issubclass(getattr(rv, n), parametrizations.Parametrization)}
    assert set(re.findall(r"`(\w+)`", named)) == how
