"""The trainer's promises: exact resume, accumulation, averaging, and a log that survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from polydit.core.errors import CheckpointError, InputError, PolyditError
from polydit.core.training.config import TrainConfig
from polydit.core.training.optim import build_optimizers
from polydit.core.training.state import load_newest, save_state, saved_steps
from polydit.core.training.stream import BatchStream, InterleavedStream
from polydit.core.training.trainer import Trainer, read_metrics

CONFIG = TrainConfig(
    steps=20, batch_size=8, learning_rate=1e-2, warmup=3, precision="no", ema=0.9, save_every=7, log_every=1
)
ITEMS = list(torch.randn(45, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind())


class Regression(nn.Module):
    """A tiny network whose hidden matrix is in `blocks`, where Muon looks for it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.blocks = nn.Sequential(nn.Linear(3, 8), nn.Tanh()).double()
        self.head = nn.Linear(8, 1).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x))[:, 0]


@dataclass(eq=False)
class Task:
    model: Regression
    noise: float = 0.1
    break_at: int = -1
    calls: int = 0

    def loss(
        self, model: nn.Module, batch: torch.Tensor, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        self.calls += 1
        target = batch.sum(1) + self.noise * torch.randn(len(batch), generator=generator, dtype=batch.dtype)
        error = (model(batch) - target).square().mean()
        return {"loss": error * float("nan") if 0 <= self.break_at < self.calls else error}


def train(out: Path, config: TrainConfig = CONFIG, task: Task | None = None) -> Trainer:
    trainer = Trainer(task or Task(Regression()), ITEMS, torch.stack, config, out)
    trainer.fit()
    return trainer


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.task.model.parameters()])


def losses(out: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(out / "metrics.jsonl")]


@pytest.mark.parametrize("muon", [0.0, 0.02])
def test_a_run_that_stopped_goes_on_to_the_same_bits(tmp_path: Path, muon: float) -> None:
    config = replace(CONFIG, muon_learning_rate=muon)
    whole = train(tmp_path / "whole", config)
    # interrupted after step 12, in the middle of an epoch of 5 batches
    torn = Trainer(Task(Regression()), ITEMS, torch.stack, config, tmp_path / "torn")
    torn.on_step = lambda step, _: torn._request_stop(signal.SIGTERM, None) if step == 12 else None
    with pytest.raises(PolyditError, match="interrupted after step 12") as stopped:
        torn.fit()
    assert stopped.value.exit_code == 143
    resumed = train(tmp_path / "torn", config)
    assert torch.equal(weights(whole), weights(resumed))
    assert losses(tmp_path / "whole") == losses(tmp_path / "torn")
    assert len(losses(tmp_path / "torn")) == 20


def test_a_killed_run_goes_on_to_the_same_losses(tmp_path: Path) -> None:
    script = f"import sys; sys.path[:0] = {[str(Path(__file__).parent)]!r}\n" + (
        "import time, pathlib, test_training as t\n"
        "class Slow(t.Task):\n"
        "    def loss(self, *a):\n"
        "        time.sleep(0.1)\n"
        "        return super().loss(*a)\n"
        f"t.train(pathlib.Path({str(tmp_path / 'run')!r}), task=Slow(t.Regression()))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60
    while not saved_steps(tmp_path / "run" / "state") and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert saved_steps(tmp_path / "run" / "state"), "the run was killed before its first checkpoint"
    assert len(losses(tmp_path / "run")) < 20
    train(tmp_path / "run")
    train(tmp_path / "whole")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_accumulated_micro_batches_are_one_batch(tmp_path: Path) -> None:
    """Without noise, the mean of k micro-batch gradients is the gradient of the whole batch."""

    class Same(BatchStream):
        """Hands out the micro-batches of the big batches."""

        def __getitem__(self, batch: int) -> object:
            big = BatchStream(len(ITEMS), 8, 0)[batch // 2]
            return big[:4] if batch % 2 == 0 else big[4:]

    whole = train(tmp_path / "whole", task=Task(Regression(), noise=0.0))
    split = Trainer(
        Task(Regression(), noise=0.0), ITEMS, torch.stack, replace(CONFIG, accumulate=2), tmp_path / "split"
    )
    split.stream = Same(len(ITEMS), 4, 0)
    split.fit()
    torch.testing.assert_close(weights(whole), weights(split), atol=1e-10, rtol=1e-8)


def test_training_lowers_the_loss_and_leaves_a_picture(tmp_path: Path) -> None:
    train(tmp_path, replace(CONFIG, steps=150, learning_rate=3e-2))
    found = losses(tmp_path)
    assert sum(found[-10:]) < 0.2 * sum(found[:10])
    assert (tmp_path / "loss.svg").read_text().lstrip().startswith("<svg")


def test_average_of_weights_follows_its_formula(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    trainer = Trainer(Task(Regression()), ITEMS, torch.stack, CONFIG, tmp_path)
    trainer.on_step = lambda *_: seen.append(weights(trainer).clone())
    start = weights(trainer).clone()
    trainer.fit()
    average = start
    for step, value in enumerate(seen, start=1):
        # the warm-up of diffusers' EMAModel: (1 + s) / (10 + s) with s the updates before this one
        decay = 0.0 if step == 1 else min(0.9, step / (9 + step))
        average = decay * average + (1 - decay) * value
    torch.testing.assert_close(weights(trainer), average, atol=1e-5, rtol=1e-4)


def test_steps_with_a_loss_that_is_no_number_are_skipped_then_stop_the_run(tmp_path: Path) -> None:
    task = Task(Regression(), break_at=5)
    with pytest.raises(PolyditError, match="no finite number for 4 steps, the last one step 8"):
        train(tmp_path, replace(CONFIG, max_bad_steps=4), task)
    assert all(bool(torch.isfinite(p).all()) for p in task.model.parameters())


def test_muon_takes_the_matrices_of_blocks_only() -> None:
    model = Regression()
    adam, muon = build_optimizers(model, replace(CONFIG, muon_learning_rate=0.02))
    assert [p for group in muon.param_groups for p in group["params"]] == [model.blocks[0].weight]
    assert sum(len(group["params"]) for group in adam.param_groups) == 3


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = save_state(tmp_path, 3, {"step": 3}, keep=2)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=r"step-00000003\.pt.*cannot be read"):
        load_newest(tmp_path)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in range(5):
        save_state(tmp_path, step, {"step": step}, keep=2)
    assert [step for step, _ in saved_steps(tmp_path)] == [3, 4]


def test_every_epoch_is_a_permutation_of_whole_batches() -> None:
    stream = BatchStream(45, 8, seed=3)
    epoch = [int(i) for k in range(stream.batches_per_epoch) for i in stream[k]]
    assert len(set(epoch)) == len(epoch) == 40
    assert epoch != [int(i) for k in range(5, 10) for i in stream[k]]
    assert BatchStream(45, 8, seed=3)[17].tolist() == stream[17].tolist()


def test_batches_hold_items_of_similar_size() -> None:
    sizes = torch.randint(3, 30, (640,), generator=torch.Generator().manual_seed(0)).tolist()
    stream = BatchStream(sizes, 16)
    spread = [max(sizes[i] for i in stream[k]) - min(sizes[i] for i in stream[k]) for k in range(40)]
    assert sum(spread) / len(spread) < 3


def test_groups_take_turns() -> None:
    groups = ["a"] * 20 + ["b"] * 9
    stream = InterleavedStream(groups, [1] * 29, batch_size=4)
    assert [{groups[i] for i in stream[k]} for k in range(6)] == [{"a"}, {"b"}] * 3


def test_groups_have_their_shares_of_a_step() -> None:
    groups = ["a"] * 20 + ["b"] * 9
    stream = InterleavedStream(groups, [1] * 29, batch_size=4, shares={"a": 0.75, "b": 0.25})
    assert [len(stream[k]) for k in range(4)] == [6, 2, 6, 2]
    assert [stream.weight(k) for k in range(4)] == [1.5, 0.5, 1.5, 0.5]


def test_a_group_without_a_share_is_refused() -> None:
    with pytest.raises(InputError, match=r"'b'.*share is 0"):
        InterleavedStream(["a", "b"], [1, 1], 1, shares={"a": 1.0})


def test_a_batch_that_cannot_be_filled_is_refused() -> None:
    with pytest.raises(InputError, match="5 items cannot fill a batch of 8"):
        BatchStream(5, 8)
