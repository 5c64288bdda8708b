"""Optimizers: AdamW, or Muon for the matrices of the blocks with AdamW for the rest."""

from __future__ import annotations

import torch
from torch import nn

from polydit.core.training.config import TrainConfig


def build_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """One or two optimizers over all trainable weights; each group keeps its peak in `initial_lr`.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix; it is meant for hidden matrices only, so
    embeddings, the in- and output layers, modulation, biases and norms stay with AdamW.
    """
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    hidden = [
        p for name, p in trainable if config.muon_learning_rate and p.ndim == 2 and ".blocks." in f".{name}"
    ]
    taken = {id(p) for p in hidden}
    rest = [p for _, p in trainable if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    ]
    if hidden:
        muon = torch.optim.Muon(
            hidden, lr=config.muon_learning_rate, weight_decay=config.weight_decay, momentum=0.95
        )
        optimizers.append(muon)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def set_learning_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Every group at `factor` of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
