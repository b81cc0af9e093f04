r"""Any part given any part: under evidence the samplers' law is the exact conditional or marginal.

A known site stands at 0 and never moves; a dropped site stands at 1 and is marginalized out, so the
law of the others is

.. math:: p(x^{rest} | x^{known}) \propto \sum_i w_i\, 1[a_i^{known} = x^{known}]\,
   1[a_i^{rest} = x^{rest}] .

Counts of atoms (those alike outside the dropped sites are one cell) pass Pearson's test at 1e-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, final

import pytest
import torch
from scipy import stats
from torch import Tensor

import reversal as rv
from reversal import state
from tests.samplers import oracles
from tests.samplers.oracles import RATE, Atoms, seeded

FULL, FAST = 20_000, 3_000


@final
@dataclass(frozen=True)
class Asked:
    """Which sites are known, with the values of atom ``row``, and which are dropped."""

    known: Mapping[str, Any] = field(default_factory=dict)
    dropped: Mapping[str, Any] = field(default_factory=dict)
    row: int = 0

    def given(self, atoms: Atoms) -> dict[str, Any] | None:
        """The contract's ``given``, one row for all items."""
        one = slice(self.row, self.row + 1)
        known = {
            name: atoms.states[name][one]
            if mask is True
            else (atoms.states[name][one], torch.tensor(mask))
            for name, mask in self.known.items()
        }
        return known or None

    def lost(self) -> dict[str, Any] | None:
        """The contract's ``dropped``."""
        lost = {n: mask if mask is True else torch.tensor(mask) for n, mask in self.dropped.items()}
        return lost or None


FIVE = {
    "token": Asked({"token": True}, row=4),
    "label": Asked({"label": True}, row=1),
    "angle": Asked({"angle": True}),
    "pose": Asked({"pose": True}, row=2),
    "half of the plane": Asked({"plane": (True, False)}),
    "plane and no pose": Asked({"plane": True}, {"pose": True}),
    "no token": Asked({}, {"token": True}),
    "no label and no plane": Asked({}, {"label": True, "plane": True}),
    "pose, half of the plane lost": Asked({"pose": True}, {"plane": (True, False)}, row=5),
    "all but the token": Asked({"plane": True, "label": True, "angle": True, "pose": True}, row=3),
    "label from the token alone": Asked({"token": True}, {"plane": True, "angle": True}, row=1),
}
MANY = {
    "a column": Asked({"columns": (True, False, False)}),
    "a token of the word": Asked({"word": (False, True)}),
    "no last column": Asked({}, {"columns": (False, False, True)}),
    "a column known, one lost": Asked(
        {"columns": (True, False, False)}, {"columns": (False, True, False)}
    ),
    "a turn known, a token lost": Asked({"turns": (False, True)}, {"word": (False, True)}),
    "parts of all": Asked(
        {"columns": (False, False, True), "word": (False, True)}, {"turns": (True, False)}
    ),
}
SAMPLERS = {
    rv.Ancestral(): 100,
    rv.Euler(churn=0): 100,
    rv.Euler(churn=0.5): 100,
    rv.Euler(churn=1): 120,
    rv.Euler(churn=2): 240,
    rv.Heun(): 40,
    rv.Multistep(): 100,
}
FAST_SAMPLERS = [rv.Ancestral(), rv.Heun(), rv.Euler(churn=1)]


@cache
def atoms_of(name: str) -> Atoms:
    return oracles.five_factors() if name == "five" else oracles.many_sites()


@cache
def collisions(name: str) -> float:
    """Steps times the mass that 18 ancestral steps put off the atoms, finite factors alone.

    Sites that jump within one step do so independently, so the mass is at most of order 1 / steps;
    evidence and the real factors only lower it.
    """
    finite = {"five": ("token", "label"), "many": ("columns", "word")}[name]
    small = oracles.Enumeration(atoms_of(name).only(*finite).denoiser)
    law = small.pushed(rv.Ancestral(), small.path.grid(18), small.marginal(1.0))
    return 18 * float(law[small.marginal(0.0) == 0].sum())


def check(name: str, asked: Asked, sampler: Any, n: int, steps: int) -> None:
    """The law of the sites that are not dropped, and the stopped sites bit for bit."""
    atoms = atoms_of(name)
    given, lost = asked.given(atoms), asked.lost()
    path: list[Any] = []
    x = sampler.sample(
        atoms.denoiser,
        n,
        steps=steps,
        given=given,
        dropped=lost,
        generator=seeded(21),
        on_step=lambda k, now: path.append(now) if k in (0, steps // 2) else None,
    )
    counted, known = ~atoms.sites(asked.dropped), atoms.sites(asked.known)
    counts, misses = atoms.frequencies(x, counted)
    law = atoms.law(counted, known, asked.row)
    assert oracles.p_value(counts, law) > RATE
    assert misses <= stats.binom.isf(RATE, n, collisions(name) / steps)
    held = state.map(lambda *parts: parts, x, *path)
    for factor, (last, *before) in held.items():
        stopped = {**asked.known, **asked.dropped}.get(factor)
        if stopped is True:
            assert all(torch.equal(last, old) for old in before)


def cases(questions: Mapping[str, Asked], name: str) -> list[Any]:
    return [pytest.param(name, asked, id=f"{name}: {what}") for what, asked in questions.items()]


@pytest.mark.parametrize(("name", "asked"), cases(FIVE, "five") + cases(MANY, "many"))
def test_law_under_evidence(name: str, asked: Asked) -> None:
    """The fast version: 3,000 draws of each question by one of three samplers in turn."""
    turn = list({**FIVE, **MANY}.values()).index(asked) % len(FAST_SAMPLERS)
    sampler = FAST_SAMPLERS[turn]
    check(name, asked, sampler, FAST, round(SAMPLERS[sampler] * (FAST / FULL) ** 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize(
    ("name", "asked"),
    cases({k: FIVE[k] for k in ("half of the plane", "pose, half of the plane lost")}, "five")
    + cases(MANY, "many"),
)
def test_law_under_evidence_in_full(name: str, asked: Asked, sampler: Any) -> None:
    """Every sampler, 20,000 draws."""
    check(name, asked, sampler, FULL, SAMPLERS[sampler])


def test_rows_ask_different_questions() -> None:
    """One mask per item: half of the items know the token, the others the label and no token."""
    atoms, n = atoms_of("five"), FAST
    first = torch.arange(n) % 2 == 0
    values = {k: atoms.states[k][4:5].expand(n) for k in ("token", "label")}
    x = rv.Euler().sample(
        atoms.denoiser,
        n,
        steps=50,
        given={"token": (values["token"], first), "label": (values["label"], ~first)},
        dropped={"token": ~first},
        generator=seeded(22),
    )
    for rows, asked in (
        (first, Asked({"token": True}, row=4)),
        (~first, Asked({"label": True}, {"token": True}, row=4)),
    ):
        counted, known = ~atoms.sites(asked.dropped), atoms.sites(asked.known)
        counts, misses = atoms.frequencies({k: part[rows] for k, part in x.items()}, counted)
        assert oracles.p_value(counts, atoms.law(counted, known, 4)) > RATE
        assert misses <= stats.binom.isf(RATE, n // 2, collisions("five") / 50)


def test_a_dropped_site_holds_a_prior_draw() -> None:
    """A dropped token is uniform and independent of the rest; a dropped label is the mask."""
    atoms = atoms_of("five")
    x = rv.Ancestral().sample(
        atoms.denoiser, FAST, steps=40, dropped={"token": True, "label": True}, generator=seeded(23)
    )
    assert bool((x["label"] == 4).all())
    kept = atoms.read(x)[0][:, 0]
    table = torch.stack([x["token"][kept == code].bincount(minlength=5) for code in kept.unique()])
    for row in table:
        assert oracles.p_value(row, torch.full((5,), 0.2).double()) > RATE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_stopped_site_never_changes_by_one_bit(sampler: Any, dtype: torch.dtype) -> None:
    """Known and dropped sites, whole factors and parts, are the same bits after every step."""
    atoms = oracles.five_factors(dtype)
    path: list[Any] = []
    given = {
        "plane": (atoms.states["plane"][:1], torch.tensor([True, False])),
        "pose": atoms.states["pose"][:1],
    }
    x = sampler.sample(
        atoms.denoiser,
        50,
        steps=7,
        given=given,
        dropped={"angle": True, "token": torch.arange(50) % 2 == 0},
        generator=seeded(24),
        on_step=lambda k, now: path.append(now),
    )
    same = [
        lambda now: now["plane"][:, 0],
        lambda now: now["pose"],
        lambda now: now["angle"],
        lambda now: now["token"][::2],
    ]
    for now in path:
        assert all(torch.equal(part(now), part(x)) for part in same)
    assert torch.equal(x["plane"][:, 0], atoms.states["plane"][:1, 0].expand(50))
    assert torch.equal(x["pose"], atoms.states["pose"][:1].expand(50, 3, 3))
    assert x["plane"].dtype == x["pose"].dtype == x["angle"].dtype == dtype


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_step_holds_what_stop_names(sampler: Any) -> None:
    """``step`` obeys its mask, per site and per item, at a time in the middle and at the end."""
    atoms, n = atoms_of("many"), 40
    x_t = atoms.draw(n, 0.6, seed=25)
    stop = {
        "columns": torch.tensor([True, False, True]),
        "word": torch.rand(n, 2, generator=seeded(26)) < 0.5,
        "turns": torch.tensor([False, True]),
    }
    for s in (0.3, 0.0):
        clocks = torch.full((n,), 0.6).double(), torch.full((n,), s).double()
        x_s = sampler.step(atoms.denoiser, x_t, *clocks, stop=stop, generator=seeded(27))
        for name, mask in stop.items():
            held = mask.expand_as(x_s[name])
            assert torch.equal(x_s[name][held], x_t[name][held])
        assert not torch.equal(x_s["turns"], x_t["turns"])


def test_given_beats_x_1_and_one_row_broadcasts() -> None:
    """Known values replace what x_1 says, and one row means the same as that row n times."""
    atoms, n = atoms_of("five"), 64
    x_1 = atoms.draw(n, 1.0, seed=28)
    wrong = {**x_1, "token": torch.full((n,), 3), "plane": x_1["plane"] + 100.0}
    plane = torch.tensor([[-1.0, 0.5]]).double()
    one = {"token": torch.tensor([2]), "plane": (plane, torch.tensor([True, True]))}
    rows = {"token": torch.full((n,), 2), "plane": plane.expand(n, 2)}

    def draw(given: Any, start: Any) -> dict[str, Tensor]:
        return rv.Euler().sample(
            atoms.denoiser, n, steps=10, given=given, x_1=start, generator=seeded(29)
        )

    x = draw(one, x_1)
    assert bool((x["token"] == 2).all())
    for other in (draw(rows, x_1), draw(one, wrong), draw({**rows, "token": torch.tensor(2)}, x_1)):
        assert all(torch.equal(x[name], other[name]) for name in x)
