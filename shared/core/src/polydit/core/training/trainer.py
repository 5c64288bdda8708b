"""The training loop: accelerate for devices and precision, one state, resume that is exact to the bit.

Everything random is a function of (seed, step): the items of a batch (`BatchStream`) and the generator that a task
draws noise and times from. So the state is the weights, their average, the optimizers and the step, and a run that was
killed goes on as if it had not been.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader

from polydit.core.errors import PolyditError
from polydit.core.jobs.seeds import item_generator
from polydit.core.report.plots import line_plot
from polydit.core.training.config import TrainConfig
from polydit.core.training.optim import build_optimizers, set_learning_rate
from polydit.core.training.state import load_newest, save_state
from polydit.core.training.stream import BatchStream, InterleavedStream, Stream

log = logging.getLogger(__name__)


@runtime_checkable
class Task(Protocol):
    """What is learned: a network, and the loss of a batch."""

    @property
    def model(self) -> nn.Module:
        """The network; `Trainer` updates it in place."""
        ...

    def loss(self, model: nn.Module, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars of a batch; "loss" is minimised, all are logged. Random draws come from `generator` (CPU)."""
        ...


class Trainer:
    """Train a task on a data set.

    Args:
        task: Network and loss.
        items: Training items, indexable.
        collate: A list of items to a batch with a `to(device)` method.
        config: Settings.
        out: Folder of the run: `metrics.jsonl`, `loss.svg`, `state/step-*.pt`.
        sizes: Size of each item; then batches hold items of similar size.
        groups: Group of each item; then each micro-batch is of one group, and the groups take turns.
        shares: Share of each group among the items of a step; None = all alike.
        device: "auto", or "cpu" to leave accelerators alone.
        on_step: Told (steps done, scalars) after each logged step, for a progress bar.
    """

    def __init__(
        self,
        task: Task,
        items: Sequence[Any],
        collate: Callable[[list[Any]], Any],
        config: TrainConfig,
        out: Path,
        *,
        sizes: Sequence[int] | None = None,
        groups: Sequence[Hashable] | None = None,
        shares: Mapping[Any, float] | None = None,
        device: str = "auto",
        on_step: Callable[[int, dict[str, Any]], None] | None = None,
    ) -> None:
        self.task, self.items, self.collate, self.config, self.out = task, items, collate, config, out
        self.on_step = on_step
        self.accelerator = Accelerator(mixed_precision=config.precision, cpu=device == "cpu")
        micro = config.batch_size // (config.accumulate * self.accelerator.num_processes)
        self.stream: Stream
        if groups is None:
            self.stream = BatchStream(sizes if sizes is not None else len(items), micro, config.seed)
        else:
            self.stream = InterleavedStream(
                groups, sizes or [1] * len(items), micro, config.seed, shares=shares
            )
        optimizers = build_optimizers(task.model, config)
        self.model, *self.optimizers = self.accelerator.prepare(task.model, *optimizers)
        if config.compile:
            self.model = torch.compile(self.model, dynamic=True)
        self.ema = EMAModel(task.model.parameters(), decay=config.ema) if config.ema else None
        self.step, self._bad_steps, self._stop = 0, 0, 0

    def fit(self) -> None:
        """Train to the last step, from the newest checkpoint of `out` if there is one.

        Afterwards the task's model holds the averaged weights (the last ones without `ema`).

        Raises:
            PolyditError: If the loss is no number for `max_bad_steps` steps, or the run was interrupted (its state is
                saved; the same command goes on).
        """
        self._resume()
        previous = {s: signal.signal(s, self._request_stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._run()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        if self.ema is not None:
            self.ema.copy_to(self.task.model.parameters())

    def _run(self) -> None:
        self.task.model.train()
        started, since = time.monotonic(), self.step
        batches = iter(self._loader())
        while self.step < self.config.steps:
            scalars = self._optimize([next(batches) for _ in range(self.config.accumulate)])
            self.step += 1
            if self.step % self.config.log_every == 0 or self.step == self.config.steps:
                seconds = (time.monotonic() - started) / (self.step - since)
                self._log({key: value.item() for key, value in scalars.items()}, seconds)
            if self._stop or self.step % self.config.save_every == 0 or self.step == self.config.steps:
                self._save()
            if self._stop:
                error = PolyditError(
                    f"interrupted after step {self.step}", hint="Run the same command to go on"
                )
                error.exit_code = 128 + self._stop
                raise error

    def _loader(self) -> DataLoader[Any]:
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        first = self.step * self.config.accumulate
        batches = (self.stream[k * processes + rank].tolist() for k in _count_from(first))
        return DataLoader(self.items, batch_sampler=batches, collate_fn=self.collate)  # type: ignore[arg-type]

    def _optimize(self, micro_batches: list[Any]) -> dict[str, Tensor]:
        config, accelerator = self.config, self.accelerator
        set_learning_rate(self.optimizers, config.learning_rate_factor(self.step))
        mean: dict[str, Tensor] = {}
        for k, batch in enumerate(micro_batches):
            generator = item_generator(config.seed, f"step-{self.step}-{k}-{accelerator.process_index}")
            with accelerator.autocast():
                scalars = self.task.loss(self.model, batch.to(accelerator.device), generator)
            weight = self._weight(k) / len(micro_batches)
            accelerator.backward(weight * scalars["loss"])
            mean = {key: mean.get(key, 0.0) + weight * value.detach() for key, value in scalars.items()}
        norm = accelerator.clip_grad_norm_(self.model.parameters(), config.clip or math.inf)
        if bool(torch.isfinite(norm)):
            self._bad_steps = 0
            for optimizer in self.optimizers:
                optimizer.step()
            if self.ema is not None:
                self.ema.step(self.task.model.parameters())
        else:
            self._skip_bad_step()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        return {**mean, "grad_norm": norm}

    def _weight(self, micro_batch: int) -> float:
        """Weight of a micro-batch of this step, on this process."""
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        return self.stream.weight((self.step * self.config.accumulate + micro_batch) * processes + rank)

    def _skip_bad_step(self) -> None:
        self._bad_steps += 1
        log.warning("step %d: the gradient is not finite; the step is skipped", self.step)
        if self._bad_steps >= self.config.max_bad_steps:
            raise PolyditError(
                f"the loss was no finite number for {self._bad_steps} steps, the last one step {self.step}",
                hint="Lower the learning rate, or train with --precision no",
            )

    def _log(self, scalars: dict[str, Any], seconds: float) -> None:
        if not self.accelerator.is_main_process:
            return
        record = {"step": self.step, **scalars, "seconds_per_step": seconds}
        with (self.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self.on_step is not None:
            self.on_step(self.step, record)

    def _save(self) -> None:
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        state = {
            "step": self.step,
            "model": self.task.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "ema": None if self.ema is None else self.ema.state_dict(),
        }
        save_state(self.out / "state", self.step, state, self.config.keep)
        records = read_metrics(self.out / "metrics.jsonl")
        steps = [float(record["step"]) for record in records]
        losses = {"loss": [record["loss"] for record in records]}
        (self.out / "loss.svg").write_text(
            line_plot(steps, losses, x_label="step", y_label="loss", log_y=True)
        )

    def _resume(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        state = load_newest(self.out / "state")
        metrics = self.out / "metrics.jsonl"
        if state is not None:
            self.step = state["step"]
            self.task.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"])
        kept = [record for record in read_metrics(metrics) if record["step"] <= self.step]
        metrics.write_text("".join(json.dumps(record) + "\n" for record in kept))

    def _request_stop(self, number: int, _frame: object) -> None:
        self._stop = number


def _count_from(first: int) -> Any:
    while True:
        yield first
        first += 1


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The log of a run; a line that a kill tore is left out."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records
