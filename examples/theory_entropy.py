r"""The rate at which two laws become alike is the score-matching operator Phi.

For a Markov process with generator L and semigroup Q, and two laws :math:`\pi_1, \pi_2`,

.. math:: \frac{d}{dt} \mathrm{KL}(\pi_1 Q_t \,\|\, \pi_2 Q_t)
   = -E_{\pi_1 Q_t}\Big[\Phi\Big(\frac{d\pi_1 Q_t}{d\pi_2 Q_t}\Big)\Big],
   \qquad \Phi(f) = \frac{L f}{f} - L \log f \ge 0 .

On R^d, Phi is half the squared difference of the scores (de Bruijn's identity, Fisher information);
on a chain it is a sum over jumps. So what denoising score matching minimizes is the speed at which
the divergence is lost, and its integral over time is the divergence itself.
Source: Benton, Shi, De Bortoli, Deligiannidis, Doucet (2024), arXiv 2211.03595, section 3.

Here: R^2, a chain of five states that is not reversible, the torus and SO(3). Left side: exact
marginals, their divergence by quadrature, differentiated in time. Right side: the library's
operators, by automatic differentiation. Both in float64; nothing is drawn. The bound, 1e-7, is for
the stencil of five points, which errs by h^4 / 30 fifth derivatives, and for the quadrature.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import torch
from torch import Tensor

import reversal as rv
from reversal.operators import Local
from reversal.testing.quadrature import rule_of

mpl.use("Agg")
import matplotlib.pyplot as plt

LogDensity = Callable[[Tensor], Tensor]
PAIR = torch.tensor([[[2.0, 0.5], [-1.0, 1.5]], [[-2.0, -1.0], [0.0, 0.5]]]).double()
H = 1e-3


@dataclass(frozen=True)
class World:
    """A process, two laws at every time, and nodes that integrate over the space."""

    name: str
    operator: Callable[[float], Local]
    laws: Callable[[float], tuple[LogDensity, LogDensity]]
    nodes: Tensor
    log_weights: Tensor
    times: list[float]

    def mean(self, log_p: LogDensity, values: Tensor) -> Tensor:
        mass = (log_p(self.nodes) + self.log_weights).exp()
        return torch.where(mass > 0, mass * values, 0.0).sum().detach()

    def divergence(self, t: float) -> Tensor:
        log_p, log_q = self.laws(t)
        return self.mean(log_p, log_p(self.nodes) - log_q(self.nodes))

    def slope(self, t: float) -> Tensor:
        near, far = [self.divergence(t + k * H) - self.divergence(t - k * H) for k in (1, 2)]
        return (8 * near - far) / (12 * H)

    def phi(self, t: float) -> Tensor:
        log_p, log_q = self.laws(t)
        ratio = self.operator(t).phi(lambda x: log_p(x) - log_q(x))
        return self.mean(log_p, ratio(self.nodes))


def of_process(name, process, pair, nodes, log_weights, times) -> World:
    """Two laws on a few atoms each, under a process with a kernel."""

    def law(atoms: Tensor, t: float) -> LogDensity:
        def log_density(x: Tensor) -> Tensor:
            clock = torch.full((len(x),), t, dtype=torch.float64)
            each = [process.kernel(a.expand_as(x), clock).log_prob(x) for a in atoms]
            return torch.stack(each).logsumexp(0) - math.log(len(atoms))

        return log_density

    laws = lambda t: (law(pair[0], t), law(pair[1], t))  # noqa: E731
    return World(name, lambda t: Local.of(process, t), laws, nodes, log_weights, times)


def plane() -> World:
    axis = torch.linspace(-9, 9, 91, dtype=torch.float64)
    nodes = torch.cartesian_prod(axis, axis)
    logs = torch.full((len(nodes),), 2 * math.log(0.2), dtype=torch.float64)
    process = rv.Gaussian(rv.Euclidean(2), rv.VariancePreserving(2.0, 2.0))
    return of_process("R²", process, PAIR, nodes, logs, [0.2, 0.35, 0.55, 0.9])


def torus() -> World:
    axis = (torch.arange(64, dtype=torch.float64) / 64 * 2 - 1) * math.pi
    nodes = torch.cartesian_prod(axis, axis)
    logs = torch.full((len(nodes),), -2 * math.log(64), dtype=torch.float64)
    process = rv.Brownian(rv.Torus(2))
    return of_process("torus", process, PAIR, nodes, logs, [0.3, 0.36, 0.43, 0.5])


def rotations() -> World:
    space = rv.SO3()
    nodes, logs = rule_of(space).nodes(space, torch.eye(3))
    turns = torch.tensor([[0.4, 0.0, 1.0], [1.0, -0.5, 0.0], [-1.0, 1.0, 0.3], [0.0, 2.0, 1.0]])
    pair = space.move(torch.eye(3).double().expand(4, 3, 3), turns.double()).view(2, 2, 3, 3)
    process = rv.Brownian(space)
    return of_process("SO(3)", process, pair, nodes, logs.flatten(), [0.45, 0.5, 0.56, 0.63])


def chain() -> World:
    generator = torch.Generator().manual_seed(0)
    rates = torch.rand(5, 5, generator=generator, dtype=torch.float64)
    rates.fill_diagonal_(0)
    starts = torch.tensor([[0.9, 0.02, 0.02, 0.02, 0.04], [0.02, 0.02, 0.06, 0.5, 0.4]]).double()

    def laws(t: float) -> tuple[LogDensity, LogDensity]:
        p, q = (starts @ torch.matrix_exp(t * (rates - torch.diag(rates.sum(1))))).log()
        return lambda x: p[x], lambda x: q[x]

    local = Local(
        rv.Categorical(5), lambda x: rv.Generator(jumps=rv.core.DenseJumps(rates[x], rates.T[x]))
    )
    zeros = torch.zeros(5, dtype=torch.float64)
    return World("chain", lambda t: local, laws, torch.arange(5), zeros, [0.1, 0.25, 0.45, 0.8])


def main(out: Path) -> None:
    figure, panels = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
    print("space         t        KL    dKL/dt   -E Phi      gap")
    for world, panel in zip([plane(), chain(), torus(), rotations()], panels, strict=True):
        length = world.times[-1] - world.times[0]
        fine = torch.linspace(world.times[0] - 0.08 * length, world.times[-1] + 0.1 * length, 40)
        panel.plot(fine, [world.divergence(float(t)) for t in fine], color="0.75", lw=4)
        for t in world.times:
            value, slope, phi = world.divergence(t), world.slope(t), world.phi(t)
            gap = float(abs(slope + phi) / phi)
            print(f"{world.name:8} {t:6.2f} {value:9.5f} {slope:9.5f} {-phi:8.5f} {gap:8.1e}")
            assert phi > 0.01
            assert gap < 1e-7
            reach = torch.tensor([-0.09, 0.09]) * length
            panel.plot(t + reach, value - phi * reach, color="C3", lw=1.5)
            panel.plot(t, value, "o", color="C3", ms=4)
        panel.set(title=world.name, xlabel="t", ylim=(0, None))
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(r"KL$(\pi_1 Q_t\,\|\,\pi_2 Q_t)$, nats")
    panels[0].text(0.35, 4.2, r"tangents of slope $-E\,\Phi$", color="C3")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "theory-entropy.png", dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    pictures = Path(__file__).resolve().parents[1] / "docs" / "pictures"
    parser.add_argument("--out", type=Path, default=pictures, help="folder of the picture")
    main(parser.parse_args().out)
