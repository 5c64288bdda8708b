"""HarmoniCa's training of a route table (Huang et al. 2025, 2410.01723): on whole trajectories, by what reuse costs.

The network stays as it is. A router has a score r in (0, 1) for each module at each step but the first; a module whose
score is above the threshold is computed and its output kept, another gives what was kept. Trajectories run from noise
on what the routed network predicts, so that a step sees the errors of those before it (section 4.2), and each step
takes one step of Adam on λ_t |routed - full|² + β Σ r. λ_t is what reuse at step t alone changes in the sample
(section 4.3). Both squares are relative to the full network's, so β has the same meaning whatever the units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.sampling.cache.blocks import find_blocks
from polydit.core.sampling.cache.hooks import Forward, handling
from polydit.core.sampling.cache.modules import inner_modules
from polydit.core.sampling.cache.router_state import RouterState
from polydit.core.sampling.cache.routes import RouteTable
from polydit.core.sampling.calibration import relative_distance

_LARGEST_LOGIT = 5.0  # as published


@dataclass(frozen=True, kw_only=True, slots=True)
class RouterTraining:
    """How the router is trained.

    Args:
        iterations: Trajectories.
        beta: β: what computing a module costs. More = more modules are reused. Published: 7e-8.
        rate: Step size of Adam. Published: 0.01, for ten times as many trajectories.
        proxy_every: Trajectories after which the λ_t are found anew, which takes as many runs as there are steps.
            Published: 500 steps of 10, which are 50 trajectories.
        threshold: Score above which a module is computed. Published: 0.1.
        seed: Of the scores at the start.

    Raises:
        InputError: A value out of its range.
    """

    iterations: int = 200
    beta: float = 7e-8
    rate: float = 0.05
    proxy_every: int = 50
    threshold: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("iterations", "beta", "rate", "proxy_every"):
            if not getattr(self, name) > 0:
                raise InputError(f"{getattr(self, name)}", where=name, expected="more than 0")
        if not 0.0 < self.threshold < 1.0:
            raise InputError(f"{self.threshold}", where="threshold", expected="between 0 and 1")


def train_router(
    network: nn.Module,
    sample: Callable[[], Sequence[Float[Tensor, " *shape"]]],
    training: RouterTraining | None = None,
    *,
    start: RouterState | None = None,
    on_iteration: Callable[[RouteTable, RouterState], object] | None = None,
) -> RouteTable:
    """Find which modules are computed at which steps.

    Args:
        network: Ours or one of diffusers; its weights are not changed.
        sample: Runs the network from noise to samples, without a cache and with as many calls each time.
        training: How; None = the defaults.
        start: Where an earlier training stood, to go on from there as if it had not ended; None = the beginning.
        on_iteration: Told the table after each trajectory, and where the training stands.

    Raises:
        InputError: The network has no blocks or modules that are known, runs have one step, samples are not finite, or
            the start is of another network or number of steps.
    """
    trainer = _Trainer(network, sample, training or RouterTraining())
    if start is not None:
        trainer.take_up(start)
    with _frozen(network):
        for iteration in range(0 if start is None else start.iterations, trainer.training.iterations):
            if iteration % trainer.training.proxy_every == 0:
                trainer.weigh()
            trainer.follow()
            if on_iteration is not None:
                on_iteration(trainer.table(), trainer.state(iteration + 1))
    return trainer.table()


class _Trainer:
    """The router at work.

    Args:
        network: As in `train_router`.
        sample: As there.
        training: As there.
    """

    def __init__(
        self, network: nn.Module, sample: Callable[[], Sequence[Tensor]], training: RouterTraining
    ) -> None:
        self.network, self.sample, self.training = network, sample, training
        self.modules = inner_modules(find_blocks(network))
        self.full, num_steps = self._counted()
        draw = torch.Generator().manual_seed(training.seed)
        start = torch.randn(num_steps - 1, len(self.modules), generator=draw)  # as published
        self.logits = [nn.Parameter(row.clone()) for row in start]
        # a row of each step: those of the other steps have no gradient and so do not move
        self.optimizer = torch.optim.Adam(self.logits, lr=training.rate)
        self.weights: list[float] = []  # λ_t of each step but the first

    def table(self) -> RouteTable:
        """What the scores amount to."""
        rows = [(self.scores(step) > self.training.threshold).tolist() for step in range(1, self.num_steps)]
        return RouteTable(
            modules=tuple(self.modules),
            computed=((True,) * len(self.modules), *(tuple(map(bool, row)) for row in rows)),
        )

    def state(self, iterations: int) -> RouterState:
        """Where it stands after so many trajectories."""
        moments = [self.optimizer.state[row] for row in self.logits]
        return RouterState(
            iterations=iterations,
            logits=torch.stack([row.detach() for row in self.logits]),
            mean=torch.stack([moment["exp_avg"] for moment in moments]),
            square=torch.stack([moment["exp_avg_sq"] for moment in moments]),
            weights=torch.tensor(self.weights, dtype=torch.float64),
        )

    def take_up(self, state: RouterState) -> None:
        """Go on from there."""
        if (there := tuple(state.logits.shape)) != (here := (len(self.logits), len(self.modules))):
            raise InputError(
                f"the training has {there[0] + 1} steps of {there[1]} modules",
                where="route",
                expected=f"{here[0] + 1} steps of {here[1]} modules, as the network has",
            )
        self.weights = state.weights.tolist()
        for row, logits, mean, square in zip(
            self.logits, state.logits, state.mean, state.square, strict=True
        ):
            row.data.copy_(logits)
            self.optimizer.state[row] = {
                "step": torch.tensor(float(state.iterations)),
                "exp_avg": mean.clone(),
                "exp_avg_sq": square.clone(),
            }

    @property
    def num_steps(self) -> int:
        """Of a run."""
        return len(self.logits) + 1

    def scores(self, step: int) -> Float[Tensor, " modules"]:
        """r of the modules at a step, which is not the first."""
        return self.logits[step - 1].sigmoid()

    def weigh(self) -> None:
        """λ_t: how far the samples move if modules are reused at step t alone, mixed by their scores as published."""
        self.weights = [self._moved(step) for step in range(1, self.num_steps)]

    def follow(self) -> None:
        """One trajectory, with a step of Adam at each of its steps."""
        self._run(self._learn)

    def _counted(self) -> tuple[Sequence[Tensor], int]:
        """Samples of the network as it is, and how often it is called for them."""
        calls: list[int] = []

        def count(step: int, mixture: _Mixture, call: Callable[[], Any]) -> Any:
            calls.append(step)
            return call()

        samples = self._run(count)
        if len(calls) < 2:
            raise InputError(f"a run of {len(calls)} steps has none to reuse", where="route")
        if not all(bool(item.isfinite().all()) for item in samples):
            raise InputError("the samples are not finite", where="route")
        return samples, len(calls)

    def _run(self, step: Callable[[int, _Mixture, Callable[[], Any]], Any]) -> Sequence[Tensor]:
        """Sample while `step` is what the network does: given the step's number, the modules, and the network's own."""
        mixture, calls = _Mixture(self.modules, self.training.threshold), iter(range(1 << 30))

        def call(forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return step(next(calls), mixture, lambda: forward(*args, **kwargs))

        with handling({self.network: call, **mixture.handlers}):
            return self.sample()

    def _moved(self, chosen: int) -> float:
        """λ of one step."""

        def step(index: int, mixture: _Mixture, call: Callable[[], Any]) -> Any:
            scores = self.scores(chosen).detach()
            mixture.weights = scores if index == chosen else torch.ones_like(scores)
            return call()

        return relative_distance(self._run(step), self.full) ** 2

    def _learn(self, index: int, mixture: _Mixture, call: Callable[[], Any]) -> Any:
        """The routed network's prediction, after a step of Adam on its loss."""
        if index == 0:
            mixture.weights = torch.ones(len(self.modules))
            return call()
        mixture.weights = None
        full = _prediction(call()).double()
        with torch.enable_grad():
            scores = self.scores(index)
            mixture.weights = straight_through(scores, self.training.threshold)
            output = call()
            error = (_prediction(output).double() - full).square().mean() / full.square().mean()
            # over β, so that Adam's own small number does not count
            loss = self.weights[index - 1] / self.training.beta * error + scores.sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.logits[index - 1].data.clamp_(-_LARGEST_LOGIT, _LARGEST_LOGIT)
        return _detached(output)


class _Mixture:
    """Modules that give a mixture of what they compute and what they kept; of one run.

    Attributes:
        weights: Share of what is computed, of each module; None = computed, and nothing is kept of it.

    Args:
        modules: By name.
        threshold: Weight above which what is computed is kept.
    """

    def __init__(self, modules: Mapping[str, nn.Module], threshold: float) -> None:
        self.weights: Float[Tensor, " modules"] | None = None
        self.threshold = threshold
        self.handlers = {module: partial(self._call, place) for place, module in enumerate(modules.values())}
        self._kept: dict[int, Any] = {}

    def _call(self, place: int, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        computed = forward(*args, **kwargs)
        if self.weights is None:
            return computed
        weight, kept = self.weights[place], self._kept.get(place)
        if kept is None or weight.item() > self.threshold:
            self._kept[place] = _detached(computed)
        return computed if kept is None else _mixed(kept, computed, weight)


def straight_through(scores: Float[Tensor, " modules"], threshold: float) -> Float[Tensor, " modules"]:
    """1 above the threshold and 0 below it, with the gradient of the scores (Bengio et al. 2013)."""
    return (scores > threshold).to(scores) + (scores - scores.detach())  # the difference is 0.0


def _mixed(kept: Any, computed: Any, weight: Tensor) -> Any:
    """The first at weight 0 and the second at 1, both exactly."""
    if isinstance(computed, tuple):
        return tuple(_mixed(*pair, weight) for pair in zip(kept, computed, strict=True))
    return None if computed is None else torch.lerp(kept, computed, weight.to(computed))


def _prediction(output: Any) -> Tensor:
    """The first tensor of what a network gives: itself, a tuple, or an output of diffusers."""
    if isinstance(output, Mapping):
        output = tuple(output.values())
    found = output[0] if isinstance(output, tuple) else output
    assert isinstance(found, Tensor)
    return found


def _detached(output: Any) -> Any:
    """Without its gradient, in the same form."""
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, tuple):
        return tuple(map(_detached, output))
    if isinstance(output, Mapping):
        return type(output)(**{key: _detached(value) for key, value in output.items()})
    return output


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """No gradient of the weights within the block."""
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
