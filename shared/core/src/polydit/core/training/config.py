"""What a training run is told. No heavy imports: command lines read the defaults from here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Settings of `Trainer`.

    Args:
        steps: Optimizer steps of the whole run.
        batch_size: Items in one optimizer step, all processes and accumulation together.
        learning_rate: Peak learning rate of AdamW.
        muon_learning_rate: Peak learning rate of Muon, which then takes the matrices of the blocks; 0 = AdamW for all.
        weight_decay: Decoupled weight decay of matrices.
        warmup: Steps over which the learning rate rises from 0.
        schedule: "cosine" falls to 0 at the last step, "constant" stays.
        accumulate: Micro-batches in one optimizer step.
        precision: "bf16" autocast, or "no" for float32.
        compile: Compile the network with `torch.compile` (once, for any batch shape). Needs a C++ compiler; on a CPU
            with bf16 a step of a small DiT takes about 0.8 times as long, after a minute of compiling.
        clip: Largest norm of the gradient; 0 = no clipping.
        ema: Decay of the moving average of the weights; 0 = none.
        seed: Seed of data order, noise and times.
        save_every: Steps between checkpoints.
        keep: Checkpoints to keep.
        log_every: Steps between lines of the log.
        max_bad_steps: Steps in a row with a loss that is no number before the run stops.
    """

    steps: int = 1000
    batch_size: int = 256
    learning_rate: float = 3e-4
    muon_learning_rate: float = 0.0
    weight_decay: float = 0.0
    warmup: int = 100
    schedule: Literal["cosine", "constant"] = "cosine"
    accumulate: int = 1
    precision: Literal["bf16", "no"] = "bf16"
    compile: bool = False
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    save_every: int = 500
    keep: int = 2
    log_every: int = 20
    max_bad_steps: int = 10

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "save_every", "keep", "log_every", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}"
            )

    def learning_rate_factor(self, step: int) -> float:
        """Share of the peak learning rate at a step: a function of the step alone, so that a resumed run agrees."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        if self.schedule == "constant":
            return rise
        done = max(0.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return rise * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
