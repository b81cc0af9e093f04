"""A network as a denoiser: any callable ``(x_t, t, cond) -> output``, with a declared meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

from torch import Tensor, nn

from reversal import parametrizations, state
from reversal.clocks import ClockLaw, SharedClock
from reversal.core import Capability, Denoiser, JointEstimate, Kind, Path
from reversal.denoisers import seen
from reversal.errors import CapabilityError, SpaceError, listed
from reversal.parametrizations import Heads, Parametrization


@final
class NetworkDenoiser(Denoiser):
    """Wrap a network in three lines: what it reverses, what it outputs, what clocks it knows.

    Args:
        network: called as ``network(x_t, t, cond)``; t is float ``(B,)`` or ``(B, *sites)`` in
            [0, 1], and on a product x_t, the output and, unless the clock is shared, t are dicts.
        process: a path, or a product of them.
        parametrization: what the output means; a dict of them on a product. None takes the default
            of each path.
        clocks: the law the network was or will be trained on.
        time: maps t to what a foreign network expects, such as ``lambda t: (999 * t).round()``.

    A schedule with parameters, or times with a memory, are modules of the denoiser.

    Raises:
        CapabilityError: if a parametrization has no meaning under its path.
    """

    def __init__(
        self,
        network: Any,
        process: Path,
        parametrization: Any = None,
        clocks: ClockLaw | None = None,
        time: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.process: Any = process
        self.clocks: Any = SharedClock() if clocks is None else clocks
        self.time = time
        self.parametrization = _resolve(process, parametrization)
        self.learned = nn.ModuleList(_learned(process, self.clocks))
        self._has_real = any(path.space.is_real for path in state.leaves(process.parts))
        self._forms = state.map(_form, process.parts, self.parametrization)

    def forward(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """Estimate at (x_t, t)."""
        output = self.outputs(x_t, t, cond)
        read = state.map(_estimate, self.process.parts, self.parametrization, x_t, t, output)
        return JointEstimate(read) if isinstance(read, dict) else read

    def outputs(self, x_t: Any, t: Any, cond: Any = None) -> Any:
        """The raw outputs, a tree over the factors."""
        fed = state.map(_prepare, self.process.parts, self.parametrization, x_t, t)
        shown = seen.clock(self, self.network, x_t, t, self._has_real)
        if self.time is not None:
            shown = state.map(self.time, shown)
        output = self.network(fed, shown, cond)
        state.map(partial(_check_output, state.batch_size(x_t)), self._forms, output)
        return output

    @property
    def like(self) -> Tensor:
        """The first parameter of the network; float32 on the CPU if it has none."""
        return seen.weight(self.network)


def _learned(process: Any, clocks: Any) -> list[nn.Module]:
    """The parts of a process and of a clock law that have a state of their own, each once."""
    schedules = [getattr(path, "schedule", None) for path in state.leaves(process.parts)]
    modules = [
        each for each in (*schedules, getattr(clocks, "times", None)) if isinstance(each, nn.Module)
    ]
    return list(dict.fromkeys(modules))


def _prepare(path: Any, how: Parametrization, x: Any, t: Any) -> Any:
    return how.prepare(path, x, t)


def _estimate(path: Any, how: Parametrization, x: Any, t: Any, output: Any) -> Any:
    return how.estimate(path, x, t, output)


def _form(path: Any, how: Parametrization) -> tuple[int, ...]:
    """The shape of an output, without the batch."""
    if isinstance(how, Heads):
        return (2, *_form(path, how.first))
    if path.space.is_real:
        is_clean = how.kind is Kind.CLEAN
        return path.space.event_shape if is_clean else path.space.tangent_shape
    if how.kind is Kind.SCORE:
        return (*path.space.sites, path.noisy_space.num_jumps)
    return (*path.space.sites, path.space.num_values)


def _check_output(n: int, form: tuple[int, ...], output: Any) -> None:
    if not isinstance(output, Tensor) or output.shape != (n, *form):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise SpaceError(
            f"Expected the network to output a tensor of shape {(n, *form)}, got {got}. Logits "
            f"have one entry per value, without the mask; all else has the shape of its space."
        )


def _resolve(process: Any, given: Any) -> Any:
    parts = process.parts
    if isinstance(parts, Mapping):
        chosen = {} if given is None else dict(given) if isinstance(given, Mapping) else None
        if chosen is None or set(chosen) - set(parts):
            raise CapabilityError(
                f"Expected a dict of parametrizations over the factors {listed(parts)}, got "
                f"{given!r}. Write {{'{next(iter(parts))}': Clean(), ...}}; "
                f"those left out get defaults."
            )
        return {name: _resolve(path, chosen.get(name)) for name, path in parts.items()}
    how: Parametrization = parametrizations.default(process) if given is None else given
    useful = {Kind.SCORE, Kind.VELOCITY, Kind.POSTERIOR}
    useful |= {Kind.CLEAN} if _walks_by_clean(process) else set()
    if how.kind not in useful and not any(process.conversion(how.kind, kind) for kind in useful):
        raise CapabilityError(
            f"Expected a parametrization that {process} can use, got {how}. "
            f"Its default is {parametrizations.default(process)}."
        )
    return how


def _walks_by_clean(process: Path) -> bool:
    return process.space.is_real and Capability.BRIDGE in process.provides
