"""Weights in memory to disk and back: half-precision saving, loading that names what does not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import ModelMixin
from diffusers.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor, nn

from polydit.core.errors import CheckpointError

__all__ = ["load_strict", "save_half"]


def save_half(model: ModelMixin, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Saves a model as ``save_pretrained`` does, its floating-point weights in 16 bits.

    ``from_pretrained`` gives float32 again unless it is asked for another dtype. float16 keeps 11 bits of each weight,
    bfloat16 only 8; trained weights lie well inside float16's range, and a weight that does not is refused.

    Args:
        model: The model; unchanged.
        folder: Where ``config.json`` and the weights go.
        dtype: torch.float16 or torch.bfloat16.

    Raises:
        CheckpointError: A weight is not finite, in the model or in 16 bits.
    """
    weights = {name: _halved(name, value, dtype) for name, value in model.state_dict().items()}
    folder = Path(folder)
    model.save_config(folder)
    config = json.loads((folder / CONFIG_NAME).read_text())
    config.pop("_name_or_path", None)  # where it lay on the machine that saves it is nobody's business
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_file(weights, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})


def _halved(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point():
        return value
    half = value.to(dtype)
    if not bool(half.isfinite().all()):
        raise CheckpointError(
            f"a weight of {name} is not finite in {dtype}", hint="Save it in torch.bfloat16"
        )
    return half


def load_strict(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """``load_state_dict`` that names what does not fit.

    Args:
        model: Receives the weights.
        state: Converted weights.
        source: The file that they come from, for the message.

    Raises:
        CheckpointError: Entries are missing, superfluous, or of another shape.
    """
    own = model.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} is not known" for name in state if name not in own]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(
            f"the weights do not fit {type(model).__name__}: {'; '.join(wrong[:5])}{more}", where=source
        )
    model.load_state_dict(state)
