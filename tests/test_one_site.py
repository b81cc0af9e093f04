"""The clock law of one running site: what it draws, and what it refuses."""

import pytest
import torch
from scipy import stats

import reversal as rv
from reversal.questions import Question

RATE = 1e-4
SPACE = rv.Product(numeric=rv.Euclidean(3), category=rv.Categorical((2, 5)))
LIKE = torch.empty((), dtype=torch.float64)


def flat(tree):
    return torch.cat([tree["numeric"], tree["category"]], 1)


def test_one_site_runs_and_each_as_often():
    n = 20_000
    clock = rv.OneSite().sample(SPACE, n, LIKE, torch.Generator().manual_seed(0))
    time, running = flat(clock.time), flat(clock.running)
    assert (running.sum(1) == 1).all()
    assert ((time == 0) | (time == 1) | running).all()
    assert ((time[running] > 0) & (time[running] < 1)).all()
    assert stats.chisquare(running.sum(0).numpy()).pvalue > RATE
    assert stats.kstest(time[running].numpy(), "uniform").pvalue > RATE


def test_the_number_of_known_sites_is_uniform():
    """A uniform share gives every number 0, ..., 4 the probability 1/5."""
    clock = rv.OneSite().sample(SPACE, 20_000, LIKE, torch.Generator().manual_seed(1))
    counts = torch.bincount((flat(clock.time) == 0).sum(1), minlength=5)
    assert len(counts) == 5
    assert stats.chisquare(counts.numpy()).pvalue > RATE


def test_a_plain_space_and_one_site_are_served():
    plain = rv.OneSite().sample(rv.Euclidean(4), 50, LIKE, torch.Generator().manual_seed(2))
    assert plain.time.shape == (50, 4)
    assert (plain.running.sum(1) == 1).all()
    single = rv.OneSite().sample(rv.Categorical(3), 50, LIKE, torch.Generator().manual_seed(2))
    assert single.running.all()


def question(known, dropped):
    masks = [
        {"numeric": torch.tensor([mask[:3]]).bool(), "category": torch.tensor([mask[3:]]).bool()}
        for mask in (known, dropped)
    ]
    return Question(None, *masks)


def test_a_question_of_more_than_one_running_site_is_refused():
    law = rv.OneSite()
    law.refuse(SPACE, question([1, 0, 0, 0, 1], [0, 1, 0, 1, 0]))
    for known, dropped in (([1, 0, 0, 0, 1], [0, 0, 0, 1, 0]), ([1, 1, 1, 1, 1], [0] * 5)):
        with pytest.raises(rv.ClockError, match="one running site"):
            law.refuse(SPACE, question(known, dropped))
    with pytest.raises(rv.ClockError, match="got 5"):
        law.refuse(SPACE, Question())
    none = Question(None, {"numeric": torch.zeros(0, 3).bool(), "category": None})
    law.refuse(SPACE, none)
    mixed = rv.MixedClocks([(rv.SiteClocks(), 0.8), (law, 0.2)])
    mixed.refuse(SPACE, Question())
