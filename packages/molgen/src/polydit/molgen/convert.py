"""ADiT's published checkpoints to ours.

The published program saves whole Lightning checkpoints: the autoencoder alone (``vae.ckpt``), or the latent diffusion
model, which holds its autoencoder as well. Both carry live objects of that program, of omegaconf and of torch; they are
read without importing any of it, and every size is taken from the tensors' shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from polydit.core.checkpoints.keys import KeyMap, below, count_blocks
from polydit.core.checkpoints.safe_pickle import Stub, load_pickled
from polydit.core.checkpoints.weights import load_strict
from polydit.core.errors import CheckpointError
from polydit.core.models.convert import merge_modulation
from polydit.molgen.model import AtomAutoencoder, LatentDiT
from polydit.molgen.pipeline import MolgenPipeline, flow_scheduler

__all__ = ["AditModels", "autoencoder_from_published", "denoiser_from_published", "read_adit", "save_adit"]

# Live objects in the published files. They become inert stubs; any other name refuses the file.
PUBLISHED_NAMES = (
    "src.",
    "omegaconf.",
    "functools.partial",
    "typing.",
    "pathlib.",
    "lightning.",
    "pytorch_lightning.",
    "lightning_fabric.",
    "timm.",
    "torch.nn.",
    "torch.optim.",
    "torch._C._nn.",
    "torch.device",
    "torch.Size",
    "numpy.",
)

_TRANSFORMER = {
    "{side}.transformer.layers.{n}.self_attn.in_proj_{p}": "{side}.transformer.blocks.{n}.attn.qkv.{p}",
    "{side}.transformer.layers.{n}.self_attn.out_proj.{p}": "{side}.transformer.blocks.{n}.attn.out.{p}",
    "{side}.transformer.layers.{n}.linear{m}.{p}": "{side}.transformer.blocks.{n}.mlp.fc{m}.{p}",
    "{side}.transformer.layers.{n}.norm{m}.{p}": "{side}.transformer.blocks.{n}.norm{m}.{p}",
    "{side}.transformer.norm.{p}": "{side}.transformer.norm.{p}",
}
_AUTOENCODER = KeyMap(
    {
        **{
            theirs.replace("{side}", side): ours.replace("{side}", side)
            for side in ("encoder", "decoder")
            for theirs, ours in _TRANSFORMER.items()
        },
        "encoder.atom_type_embedder.weight": "encoder.type_embed.weight",
        "encoder.pos_embedder.{n}.{p}": "encoder.position_mlp.{n}.{p}",
        "encoder.frac_coords_embedder.{n}.{p}": "encoder.frac_mlp.{n}.{p}",
        "quant_conv.weight": "to_moments.weight",
        "post_quant_conv.weight": "from_latent.weight",
        "decoder.atom_types_head.{p}": "decoder.type_head.{p}",
        "decoder.pos_head.weight": "decoder.position_head.weight",
        "decoder.frac_coords_head.weight": "decoder.frac_head.weight",
        "decoder.lattice_head.weight": "decoder.lattice_head.weight",
    },
    dropped=[
        f"loss_weights_{term}" for term in ("atom_types", "lengths", "angles", "frac_coords", "pos", "kl")
    ],
)
_DENOISER = KeyMap(
    {
        "x_embedder.{p}": "input.{p}",
        "t_embedder.mlp.{n}.{p}": "time_embed.mlp.{n}.{p}",
        "dataset_embedder.embedding_table.weight": "kind_embed.weight",
        "spacegroup_embedder.embedding_table.weight": "spacegroup_embed.weight",
        "modulation.{p}": "modulator.linear.{p}",  # made by merge_modulation
        "blocks.{n}.attn.in_proj_{p}": "blocks.{n}.attn.qkv.{p}",
        "blocks.{n}.attn.out_proj.{p}": "blocks.{n}.attn.out.{p}",
        "blocks.{n}.mlp.fc{m}.{p}": "blocks.{n}.mlp.fc{m}.{p}",
        "final_layer.linear.{p}": "final.linear.{p}",
    }
)

# Atoms per structure in the published training data: row i counts structures of i atoms (the tables
# data/{qm9,mp_20}/num_nodes_bincount.pt beside the published program).
_QM9 = (0, 0, 0, 2, 4, 5, 12, 20, 65, 172, 483, 1053, 2189, 4027, 6758, 10216, 13824, 16969, 17442, 18146, 12403, 13166,
        4428, 6362, 712, 1923, 59, 356, 0, 35)  # fmt: skip
_MP20 = (0, 131, 1152, 1129, 8341, 2591, 4522, 1218, 4275, 1817, 5224, 703, 5322, 1180, 3575, 807, 3639, 490, 2919, 571,
         4670)  # fmt: skip
SIZE_HISTOGRAMS = {
    kind: {str(size): count for size, count in enumerate(table) if count}
    for kind, table in (("molecule", _QM9), ("crystal", _MP20))
}
_HEADS = {512: 8, 384: 6, 768: 12, 1024: 16}  # by width: the autoencoder; the denoisers S, B and L
_NUM_STEPS, _GUIDANCE_SCALE = 100, 2.0  # ADiT's sampling defaults


@dataclass(frozen=True, slots=True)
class AditModels:
    """What a published checkpoint holds.

    Attributes:
        autoencoder: Always there.
        denoiser: None for a checkpoint of the autoencoder alone.
    """

    autoencoder: AtomAutoencoder
    denoiser: LatentDiT | None


def read_adit(path: Path, *, weights: str = "raw", num_heads: int | None = None) -> AditModels:
    """Reads a published Lightning checkpoint, or a bare state dict with the same keys.

    Args:
        path: The ``.ckpt`` file.
        weights: ``"raw"``, which the published evaluation uses, or ``"ema"``, the running average of the denoiser's
            training, which Lightning keeps with the optimizer's state.
        num_heads: Attention heads of a network that the file has no live module of; shapes do not tell them. None =
            those of the published sizes.

    Raises:
        CheckpointError: The file is not safe, damaged or of another kind, has no averaged weights, or does not tell
            the heads.
    """
    source = str(path)
    content = load_pickled(path, inert=PUBLISHED_NAMES)
    if not isinstance(content, dict):
        raise CheckpointError(
            "not a checkpoint of ADiT", where=source, expected="a dictionary with a state_dict"
        )
    entries = _entries(content.get("state_dict", content))
    state = {str(key): value for key, value in entries.items() if isinstance(value, Tensor)}
    if weights == "ema":
        state = _averaged(state, content, source)
    hyper = _entries(content.get("hyper_parameters"))
    whole = any(key.startswith("denoiser.") for key in state)
    vae = below("autoencoder.", state) if whole else state
    # A checkpoint of the whole model names its autoencoder by a path, so it holds no live one.
    heads = _heads_of(hyper.get("encoder")) or num_heads or _published_heads(vae, "quant_conv.weight")
    autoencoder = autoencoder_from_published(vae, heads=heads, source=source)
    if not whole:
        return AditModels(autoencoder, None)
    dit = below("denoiser.", state)
    heads = (
        _heads_of(hyper.get("denoiser")) or num_heads or _published_heads(dit, "final_layer.linear.weight")
    )
    return AditModels(autoencoder, denoiser_from_published(dit, heads=heads, source=source))


def save_adit(models: AditModels, folder: Path) -> None:
    """Writes the layout that `MolgenPipeline.from_pretrained` reads; an autoencoder alone becomes ``autoencoder/``."""
    if models.denoiser is None:
        models.autoencoder.save_pretrained(Path(folder) / "autoencoder")
        return
    MolgenPipeline(
        autoencoder=models.autoencoder,
        denoiser=models.denoiser,
        scheduler=flow_scheduler(),
        size_histograms=SIZE_HISTOGRAMS,
        num_steps=_NUM_STEPS,
        guidance_scale=_GUIDANCE_SCALE,
    ).save_pretrained(folder)


def autoencoder_from_published(
    state: Mapping[str, Tensor], *, heads: int | None, source: str = "the checkpoint"
) -> AtomAutoencoder:
    """Builds the autoencoder from the published module's state dict (``encoder.*``, ``decoder.*``, ``quant_conv.*``).

    Args:
        state: Published names and shapes; the six ``loss_weights_*`` are not needed.
        heads: Attention heads.
        source: Where it comes from, for messages.

    Raises:
        CheckpointError: An entry is missing, unknown or of a shape that does not fit, or the heads are not known.
    """
    converted = _AUTOENCODER.to_ours(state, source=source)
    hidden, width = _shape(converted, "encoder.transformer.blocks.0.mlp.fc1.weight", source)
    model = AtomAutoencoder(
        width=width,
        depth=count_blocks(converted, "encoder.transformer.blocks."),
        heads=_checked_heads(heads, width, source),
        mlp_ratio=hidden / width,
        latent_channels=_shape(converted, "from_latent.weight", source)[1],
    )
    load_strict(model, converted, source=source)
    return model.eval()


def denoiser_from_published(
    state: Mapping[str, Tensor], *, heads: int | None, source: str = "the checkpoint"
) -> LatentDiT:
    """Builds the denoiser from the published module's state dict; arguments as `autoencoder_from_published`."""
    converted = _DENOISER.to_ours(merge_modulation(state, source=source), source=source)
    hidden, width = _shape(converted, "blocks.0.mlp.fc1.weight", source)
    model = LatentDiT(
        latent_channels=_shape(converted, "final.linear.weight", source)[0],
        width=width,
        depth=count_blocks(converted),
        heads=_checked_heads(heads, width, source),
        mlp_ratio=hidden / width,
    )
    load_strict(model, converted, source=source)
    return model.eval()


def _shape(state: Mapping[str, Tensor], key: str, source: str) -> Sequence[int]:
    if key not in state:
        raise CheckpointError(f"{key} is missing: not a checkpoint of ADiT", where=source)
    return state[key].shape


def _checked_heads(heads: int | None, width: int, source: str) -> int:
    if heads is None or width % heads:
        unknown = "the file does not tell the number of heads"
        problem = unknown if heads is None else f"{heads} heads do not divide the width {width}"
        raise CheckpointError(problem, where=source, hint="Give it with --num-heads")
    return heads


def _averaged(state: dict[str, Tensor], content: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The state with its averaged values: ``optimizer_states[0]["ema"]`` lists them in the order of ``parameters()``,
    which is that of the state dict, for all parameters or for the denoiser's alone."""
    optimizers = content.get("optimizer_states")
    averages = _entries(optimizers[0]).get("ema") if isinstance(optimizers, list) and optimizers else None
    if not isinstance(averages, (list, tuple)) or not all(isinstance(value, Tensor) for value in averages):
        raise CheckpointError("the file holds no averaged weights", where=source, hint="Use --weights raw")
    for names in (list(state), [key for key in state if key.startswith("denoiser.")]):
        if [state[name].shape for name in names] == [value.shape for value in averages]:
            return {**state, **dict(zip(names, averages, strict=True))}
    raise CheckpointError(
        "the averaged weights do not fit the weights", where=source, hint="Use --weights raw"
    )


def _entries(value: Any) -> Mapping[Any, Any]:
    """A dictionary, or what a stubbed subclass of one (omegaconf's, Lightning's) held; else nothing."""
    if isinstance(value, Stub):
        return dict(item for item in value.items if isinstance(item, tuple) and len(item) == 2)
    return value if isinstance(value, dict) else {}


def _published_heads(state: Mapping[str, Tensor], key: str) -> int | None:
    """By the width of the published networks, which is the last axis of `key`."""
    return _HEADS.get(state[key].shape[-1]) if key in state else None


def _heads_of(module: Any) -> int | None:
    """The number of heads in the first attention layer of a stubbed module."""
    return next(
        (heads for stub in _stubs(module) if (heads := stub.attribute("num_heads")) is not None), None
    )


def _stubs(value: Any) -> Iterator[Stub]:
    """A stubbed module and all modules below it, outermost first."""
    if isinstance(value, Stub):
        yield value
        modules = value.attribute("_modules")
        for child in modules.values() if isinstance(modules, dict) else ():
            yield from _stubs(child)
