"""A transformer learns posterior expectations that are known exactly, whatever part is given."""

import torch

import reversal as rv
from reversal.training.fitting import ports_of
from reversal.training.loop import Plan, train

CORRELATED = torch.tensor([[1.0, 0.9, -0.6], [0.9, 1.0, -0.4], [-0.6, -0.4, 1.0]])
CLOCKS = rv.SiteClocks(known=0.3, dropped=0.2)


def chain() -> torch.Tensor:
    """The law of four steps of a walk on three states that mostly stays, as a table."""
    step = torch.tensor([[0.8, 0.15, 0.05], [0.05, 0.8, 0.15], [0.15, 0.05, 0.8]])
    first = torch.tensor([0.5, 0.3, 0.2])
    return torch.einsum("a,ab,bc,cd->abcd", first, step, step, step)


def untrained(process) -> rv.NetworkDenoiser:
    """A small transformer that knows no more than each site alone says of itself."""
    network = rv.Transformer(32, 2, 2, dropout=0.0).build(ports_of(process))
    return rv.NetworkDenoiser(network, process, clocks=CLOCKS)


def learned(process, draw, steps: int) -> rv.NetworkDenoiser:
    """A small transformer after some hundred steps on fresh draws of a law."""
    denoiser, generator = untrained(process), torch.Generator().manual_seed(0)
    objective = rv.Regression()
    train(
        denoiser,
        lambda index: objective(denoiser, draw(len(index), generator), generator=generator),
        256,
        Plan(steps=steps, learning_rate=4e-3),
        generator,
    )
    return denoiser


def asked(process, x_0):
    """States and clocks as the law of clocks draws them: parts known, running and dropped."""
    generator = torch.Generator().manual_seed(1)
    n = len(next(iter(x_0.values())))
    clock = CLOCKS.sample(process.space, n, torch.empty(()), generator)
    x_t = process.kernel(x_0, clock.time).sample(generator)
    fresh = process.prior.sample(n, generator)
    kept = {name: torch.where(clock.time[name] == 0, x_0[name], x_t[name]) for name in x_t}
    x_t = {name: torch.where(clock.time[name] == 1, fresh[name], kept[name]) for name in x_t}
    return x_t, clock.time, clock.running


def test_it_learns_the_posterior_mean_of_correlated_numbers(global_seed):
    process = rv.Independent(x=rv.Gaussian(rv.Euclidean(3)))
    exact = rv.GaussianData(process.parts["x"], torch.zeros(3), CORRELATED)
    root = torch.linalg.cholesky(CORRELATED)

    def draw(n, generator):
        return {"x": torch.randn(n, 3, generator=generator) @ root.mT}

    x_t, t, running = asked(process, draw(4096, torch.Generator().manual_seed(2)))
    truth = exact(x_t["x"], t["x"]).clean

    def error(denoiser):
        with torch.no_grad():
            squares = (denoiser(x_t, t)["x"].clean - truth) ** 2
        return float(squares[running["x"]].mean())

    assert error(untrained(process)) > 0.05
    assert error(learned(process, draw, 300)) < 0.015


def test_it_learns_the_posterior_of_a_chain(global_seed):
    process = rv.Independent(word=rv.Mask(rv.Categorical(3, 4)))
    law = chain()
    exact = rv.Enumerated(process, law)

    def draw(n, generator):
        codes = torch.multinomial(law.flatten(), n, replacement=True, generator=generator)
        return {"word": torch.stack(torch.unravel_index(codes, law.shape), 1)}

    x_t, t, running = asked(process, draw(4096, torch.Generator().manual_seed(2)))
    hidden = running["word"] & (x_t["word"] == 3)
    truth = exact(x_t, t)["word"].posterior.softmax(-1)[hidden]

    def distance(denoiser):
        """The mean distance in total variation."""
        with torch.no_grad():
            ours = denoiser(x_t, t)["word"].posterior.softmax(-1)[hidden]
        return float((ours - truth).abs().sum(-1).mean() / 2)

    assert distance(untrained(process)) > 0.25
    assert distance(learned(process, draw, 300)) < 0.05
