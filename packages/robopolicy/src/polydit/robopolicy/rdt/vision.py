"""The encoder that the published RDT sees with: SigLIP (Zhai et al. 2023), from a folder on disk.

Only the published networks need it, so `transformers` is imported when an encoder is asked for, and nothing is
downloaded. Shapes: b items, k pictures, n tokens of all pictures, c channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from polydit.core.errors import CheckpointError, MissingExtraError
from polydit.robopolicy.rdt.conditions import BACKGROUND


class SigLIP:
    """Pictures to the patch tokens of a frozen SigLIP, after its last norm.

    RDT-1B and RDT-170M were trained with `siglip-so400m-patch14-384`: 729 tokens of width 1152 for each of six
    pictures [camera, right wrist, left wrist] of the moment before and of now. A missing one is filled with the grey
    `BACKGROUND`; do not repeat another camera in its place.

    Args:
        model: A `SiglipVisionModel` of transformers.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.requires_grad_(False).eval()

    @classmethod
    def from_folder(cls, folder: Path) -> SigLIP:
        """Load what `save_pretrained` of transformers wrote; the vision part of a whole SigLIP will do.

        Raises:
            MissingExtraError: transformers is not installed.
            CheckpointError: The folder holds no SigLIP, or it is damaged.
        """
        try:
            from transformers import SiglipVisionModel
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                str(error.name), "polydit-robopolicy[siglip]", purpose="SigLIP"
            ) from error
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                "there is no SigLIP", where=str(folder), expected="config.json and model.safetensors"
            )
        try:
            model, report = SiglipVisionModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"SigLIP cannot be read ({error})", where=str(folder)) from error
        if missing := sorted(report["missing_keys"]):  # transformers would fill them at random
            raise CheckpointError(f"SigLIP lacks {missing[0]}", where=str(folder))
        return cls(model)

    @torch.no_grad()
    def __call__(self, pictures: Float[Tensor, "b k 3 y x"]) -> Float[Tensor, "b n c"]:
        """Pad to squares with grey, scale, normalise to [-1, 1], encode; tokens of all pictures in a row."""
        items, count = pictures.shape[:2]
        seen = 2.0 * self._squares(pictures.flatten(0, 1)) - 1.0
        tokens = self.model(seen.to(self.model.dtype)).last_hidden_state
        return tokens.unflatten(0, (items, count)).flatten(1, 2).to(pictures)

    def _squares(self, pictures: Float[Tensor, "n 3 y x"]) -> Float[Tensor, "n 3 v v"]:
        size = self.model.config.image_size
        height, width = pictures.shape[2:]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        margins = (left, side - width - left, top, side - height - top)
        padded = F.pad(pictures, margins, value=BACKGROUND)
        if side == size:
            return padded
        scaled = F.interpolate(padded, size=(size, size), mode="bicubic", antialias=True)
        return scaled.clamp(0.0, 1.0)
