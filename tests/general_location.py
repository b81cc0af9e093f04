r"""An exact oracle with numbers and categories: Gaussian data within each cell of a table.

.. math:: P(c) = \pi_c, \qquad x \mid c \sim N(\mu_c, C) .

Every conditional is in closed form. Source: Olkin and Tate (1961).
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

import reversal as rv
from reversal import state
from reversal.clocks import AnyClock
from reversal.core import Denoiser, Estimate, JointEstimate, Kind
from reversal.denoisers.empirical import Empirical


@final
class GeneralLocation(Denoiser):
    """The exact denoiser on ``numeric`` and ``category``, one site per axis of the table.

    Args:
        probs: P(c), one axis per categorical site.
        means: mu_c, shape (*axes, d).
        covariance: C, shape (d, d).
    """

    def __init__(
        self, probs: Tensor, means: Tensor, covariance: Tensor, schedule: Any = None
    ) -> None:
        super().__init__()
        numeric = rv.Gaussian(rv.Euclidean(len(covariance)), schedule or rv.Rectified())
        category = rv.Mask(rv.Categorical(tuple(probs.shape)))
        self.process: Any = rv.Independent(numeric=numeric, category=category)
        self.clocks: Any = AnyClock()
        cells = torch.cartesian_prod(*(torch.arange(size) for size in probs.shape))
        self.cells = cells.reshape(probs.numel(), -1)
        self.log_probs = probs.flatten().log()
        flat = means.reshape(-1, means.shape[-1])
        self.within = [rv.GaussianData(numeric, mean, covariance) for mean in flat]
        self.codes = Empirical(category, self.cells, probs.flatten())

    @property
    def like(self) -> Tensor:
        return self.within[0].like

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        at, codes = state.take(t, "numeric"), state.take(t, "category")
        seen = [law.log_prob(x_t["numeric"], at) for law in self.within]
        category = self.process.parts["category"]
        logs = self.codes._log_likelihood(True, category, x_t["category"], codes, self.cells)
        weights = (torch.stack(seen, 1) + logs + self.log_probs).softmax(1)
        means = [law(x_t["numeric"], at).clean for law in self.within]
        clean = (weights[..., None] * torch.stack(means, 1)).sum(1)
        law = torch.nn.functional.one_hot(self.cells, category.space.num_values).to(weights)
        posterior = torch.einsum("bk,ksv->bsv", weights, law).log()
        numeric = self.process.parts["numeric"]
        return JointEstimate(
            {
                "numeric": Estimate(numeric, x_t["numeric"], at, Kind.CLEAN, clean),
                "category": Estimate(category, x_t["category"], codes, Kind.POSTERIOR, posterior),
            }
        )
