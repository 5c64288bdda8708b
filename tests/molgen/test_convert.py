"""Published Lightning checkpoints of ADiT, as that program writes them, to folders that the pipeline loads."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import Result
from torch import Tensor, nn

from polydit.core.errors import CheckpointError
from polydit.core.models import DiT
from polydit.core.models.convert import dit_to_published
from polydit.molgen.cli import molgen
from polydit.molgen.convert import read_adit, save_adit
from polydit.molgen.model import AtomAutoencoder, LatentDiT
from polydit.molgen.pipeline import MolgenPipeline, SampleRequest

WIDTH, HEADS, DEPTH, LATENT = 24, 3, 2, 4

Invoke = Callable[..., Result]


# The published program, as far as its checkpoints show it: names of modules and of parameters.


class TransformerEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.d_model, self.nhead = WIDTH, HEADS
        self.atom_type_embedder = nn.Embedding(100, WIDTH)
        self.pos_embedder, self.frac_coords_embedder = coordinates(), coordinates()
        self.transformer = transformer()


class TransformerDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.d_model, self.nhead = WIDTH, HEADS
        self.transformer = transformer()
        self.atom_types_head = nn.Linear(WIDTH, 100)
        self.pos_head, self.frac_coords_head = (nn.Linear(WIDTH, 3, bias=False) for _ in range(2))
        self.lattice_head = nn.Linear(WIDTH, 6, bias=False)


class TimestepEmbedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))


class LabelEmbedder(nn.Module):
    def __init__(self, rows: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(rows, WIDTH)


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = (
            nn.Linear(WIDTH, 4 * WIDTH),
            nn.GELU("tanh"),
            nn.Linear(4 * WIDTH, WIDTH),
        )


class DiTBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = Mlp()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))


class FinalLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, LATENT)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 2 * WIDTH))


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.d_x, self.d_model, self.nhead = LATENT, WIDTH, HEADS
        self.x_embedder = nn.Linear(2 * LATENT, WIDTH)
        self.t_embedder = TimestepEmbedder()
        self.dataset_embedder, self.spacegroup_embedder = LabelEmbedder(3), LabelEmbedder(231)
        self.blocks = nn.ModuleList(DiTBlock() for _ in range(DEPTH))
        self.final_layer = FinalLayer()


class Interpolant:
    def __init__(self) -> None:
        self.num_timesteps, self.min_t = 100, 0.01


class DictConfig(dict):  # type: ignore[type-arg]
    """omegaconf's, as a dictionary subclass."""


def coordinates() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, WIDTH, bias=False), nn.SiLU(), nn.Linear(WIDTH, WIDTH))


def transformer() -> nn.TransformerEncoder:
    gelu = partial(F.gelu, approximate="tanh")
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, 0.0, gelu, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, DEPTH, nn.LayerNorm(WIDTH), enable_nested_tensor=False)


LIVE = {
    "src.models.encoders.transformer": (TransformerEncoder,),
    "src.models.decoders.transformer": (TransformerDecoder,),
    "src.models.denoisers.dit": (Denoiser, DiTBlock, FinalLayer, TimestepEmbedder, LabelEmbedder),
    "src.models.interpolants.flow_matching": (Interpolant,),
    "timm.layers.mlp": (Mlp,),
    "omegaconf.dictconfig": (DictConfig,),
}


class Vae(nn.Module):
    """The part of the LightningModule that holds parameters."""

    def __init__(self) -> None:
        super().__init__()
        for term in ("atom_types", "lengths", "angles", "frac_coords", "pos", "kl"):
            setattr(self, f"loss_weights_{term}", nn.Parameter(torch.ones(2)))
        self.encoder, self.decoder = TransformerEncoder(), TransformerDecoder()
        self.quant_conv = nn.Linear(WIDTH, 2 * LATENT, bias=False)
        self.post_quant_conv = nn.Linear(LATENT, WIDTH, bias=False)


class Ldm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.autoencoder, self.denoiser = Vae(), Denoiser()


def lightning(module: nn.Module, hyper_parameters: dict[str, Any], ema: list[Tensor]) -> dict[str, Any]:
    """The top level of a Lightning 2 checkpoint."""
    optimizer = {"state": {}, "param_groups": [{"lr": 1e-4, "params": []}], "ema": ema, "decay": 0.9999}
    return {
        "epoch": 3,
        "global_step": 400,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": module.state_dict(),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val/valid'}": {"best_model_score": torch.tensor(0.9)}},
        "optimizer_states": [optimizer],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": hyper_parameters,
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with vae.ckpt and ldm.ckpt; the program that wrote them is gone when it returns."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    vae, ldm = Vae(), Ldm()
    settings = DictConfig(lr=1e-4)
    vae_hyper = {
        "encoder": vae.encoder,
        "decoder": vae.decoder,
        "latent_dim": LATENT,
        "optimizer": partial(torch.optim.AdamW, lr=1e-4),
        "scheduler": None,
        "loss_weights": settings,
        "compile": False,
    }
    ldm_hyper = {
        "autoencoder_ckpt": "/checkpoint/somebody/vae.ckpt",
        "denoiser": ldm.denoiser,
        "interpolant": Interpolant(),
        "optimizer": partial(torch.optim.AdamW, lr=1e-4),
    }
    ema = [parameter.detach() + 1.0 for parameter in ldm.parameters()]
    with pytest.MonkeyPatch.context() as patch:
        for name, kinds in LIVE.items():
            for parent in (name.rsplit(".", k)[0] for k in range(name.count("."), -1, -1)):
                if parent not in sys.modules or parent == name:
                    patch.setitem(sys.modules, parent, types.ModuleType(parent))
            for kind in kinds:
                patch.setattr(kind, "__module__", name)
                setattr(sys.modules[name], kind.__name__, kind)
        torch.save(lightning(vae, vae_hyper, []), folder / "vae.ckpt")
        torch.save(lightning(ldm, ldm_hyper, ema), folder / "ldm.ckpt")
    return folder


@pytest.fixture(scope="module")
def state(published: Path) -> dict[str, Tensor]:
    """The weights of ldm.ckpt by their published names, made again."""
    torch.manual_seed(0)
    Vae()
    return Ldm().state_dict()


def test_sizes_are_read_from_shapes_and_live_modules(published: Path) -> None:
    models = read_adit(published / "vae.ckpt")
    config = models.autoencoder.config
    assert (config.width, config.depth, config.heads) == (WIDTH, DEPTH, HEADS)
    assert (config.mlp_ratio, config.latent_channels) == (2.0, LATENT)
    assert models.denoiser is None
    denoiser = read_adit(published / "ldm.ckpt", num_heads=4).denoiser
    assert denoiser is not None
    config = denoiser.config
    assert (config.width, config.depth, config.latent_channels, config.mlp_ratio) == (
        WIDTH,
        DEPTH,
        LATENT,
        4.0,
    )
    assert config.heads == HEADS  # the file tells; 4 was for the autoencoder


def test_heads_that_nothing_tells_must_be_given(published: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not tell the number of heads.*--num-heads"):
        read_adit(published / "ldm.ckpt")
    with pytest.raises(CheckpointError, match="5 heads do not divide the width 24"):
        read_adit(published / "ldm.ckpt", num_heads=5)


@pytest.mark.parametrize(("weights", "shift"), [("raw", 0.0), ("ema", 1.0)])
def test_raw_and_averaged_weights(
    weights: str, shift: float, published: Path, state: dict[str, Tensor]
) -> None:
    models = read_adit(published / "ldm.ckpt", weights=weights, num_heads=HEADS)
    assert models.denoiser is not None
    pairs = {
        "denoiser.x_embedder.weight": models.denoiser.input.weight,
        "denoiser.blocks.1.attn.in_proj_weight": models.denoiser.blocks[1].attn.qkv.weight,
        "autoencoder.quant_conv.weight": models.autoencoder.to_moments.weight,
    }
    for name, ours in pairs.items():
        assert torch.equal(ours, state[name] + shift), name


def test_averages_of_the_denoiser_alone_are_found(state: dict[str, Tensor], tmp_path: Path) -> None:
    averages = [value + 2.0 for name, value in state.items() if name.startswith("denoiser.")]
    torch.save({"state_dict": state, "optimizer_states": [{"ema": averages}]}, tmp_path / "last.ckpt")
    models = read_adit(tmp_path / "last.ckpt", weights="ema", num_heads=HEADS)
    assert models.denoiser is not None
    assert torch.equal(models.denoiser.input.bias, state["denoiser.x_embedder.bias"] + 2.0)
    assert torch.equal(models.autoencoder.to_moments.weight, state["autoencoder.quant_conv.weight"])
    torch.save({"state_dict": state, "optimizer_states": [{"ema": averages[:-1]}]}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="averaged weights do not fit"):
        read_adit(tmp_path / "last.ckpt", weights="ema", num_heads=HEADS)


def test_a_bare_state_dict_is_read_too(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pt")
    assert read_adit(tmp_path / "weights.pt", num_heads=HEADS).denoiser is not None
    with pytest.raises(CheckpointError, match="no averaged weights"):
        read_adit(tmp_path / "weights.pt", weights="ema", num_heads=HEADS)


def test_converted_folder_loads_and_samples(published: Path, tmp_path: Path) -> None:
    models = read_adit(published / "ldm.ckpt", num_heads=HEADS)
    save_adit(models, tmp_path)
    pipeline = MolgenPipeline.from_pretrained(tmp_path)
    assert models.denoiser is not None
    for ours, loaded in ((models.denoiser, pipeline.denoiser), (models.autoencoder, pipeline.autoencoder)):
        other = loaded.state_dict()
        assert all(torch.equal(value, other[name]) for name, value in ours.state_dict().items())
    assert sum(pipeline.config.size_histograms["molecule"].values()) == 130_831  # QM9
    assert sum(pipeline.config.size_histograms["crystal"].values()) == 54_276
    requests = [SampleRequest(id=str(n), kind="molecule", num_atoms=n, seed=n) for n in (3, 5)]
    assert [s.num_atoms for s in pipeline(requests, num_steps=2)] == [3, 5]


def test_cli_converts_and_describes(published: Path, invoke: Invoke, tmp_path: Path) -> None:
    source, out = published / "ldm.ckpt", tmp_path / "adit"
    done = invoke(molgen, "convert", source, "--out", out, "--num-heads", HEADS, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    described = invoke(molgen, "info", out, "--json")
    assert described.exit_code == 0, described.output
    record = json.loads(described.stdout)
    assert record["parameters"] == summary["parameters"] and record["source"] == "ldm.ckpt"
    assert record["atoms"] == {"molecule": "3-29", "crystal": "1-20"}
    assert record["num_steps"] == 100
    again = invoke(molgen, "convert", source, "--out", out, "--num-heads", HEADS)
    assert again.exit_code == 2 and "--overwrite" in again.stderr
    assert invoke(molgen, "convert", source, "-o", out, "--num-heads", HEADS, "--overwrite").exit_code == 0


def test_cli_converts_an_autoencoder_alone(published: Path, invoke: Invoke, tmp_path: Path) -> None:
    done = invoke(molgen, "convert", published / "vae.ckpt", "--out", tmp_path / "vae")
    assert done.exit_code == 0, done.output
    loaded = AtomAutoencoder.from_pretrained(tmp_path / "vae" / "autoencoder")
    assert loaded.config.heads == HEADS


class Evil:
    """Writes a file when it is unpickled by plain pickle."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.mark)!r}, 'w')",)


def test_cli_refuses_what_is_not_safe_or_of_another_kind(
    published: Path, state: dict[str, Tensor], invoke: Invoke, tmp_path: Path
) -> None:
    dit = dit_to_published(DiT(sample_size=4, width=16, depth=1, heads=2, num_classes=2))
    mark = tmp_path / "mark"
    torch.save({"state_dict": state, "extra": Evil(mark)}, tmp_path / "evil.ckpt")
    torch.save(dit, tmp_path / "dit.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"state_dict": 3, "hyper_parameters": [], "optimizer_states": {}}, tmp_path / "odd.ckpt")
    gap = {key.replace("blocks.1.", "blocks.999999999."): value for key, value in state.items()}
    torch.save({"state_dict": gap}, tmp_path / "gap.ckpt")
    (tmp_path / "short.ckpt").write_bytes((published / "ldm.ckpt").read_bytes()[:-1000])
    (tmp_path / "text.ckpt").write_text("not weights")
    messages = {
        "evil.ckpt": "builtins.exec",
        "dit.pt": "of another kind",
        "list.pt": "not a checkpoint of ADiT",
        "odd.ckpt": "not a checkpoint of ADiT",
        "gap.ckpt": "is missing",
        "short.ckpt": "truncated",
        "text.ckpt": "not a checkpoint of torch.save",
        "absent.ckpt": "no such file",
    }
    for name, message in messages.items():
        done = invoke(molgen, "convert", tmp_path / name, "--out", tmp_path / "out", "--num-heads", 3)
        assert done.exit_code == 2, (name, done.output)
        assert message in done.stderr and name in done.stderr and "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()
    assert not mark.exists()


def test_info_lists_the_known_checkpoints(invoke: Invoke) -> None:
    done = invoke(molgen, "info", "--list", "--json")
    assert done.exit_code == 0, done.output
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert records[0]["checkpoint"] == "starter" and records[0]["licence"]


def test_info_of_a_file_names_the_command(published: Path, invoke: Invoke) -> None:
    done = invoke(molgen, "info", published / "ldm.ckpt")
    assert done.exit_code == 2 and "molgen convert" in done.stderr


def test_published_sizes_have_the_published_counts() -> None:
    """Counted on the published program, in millions: DiT-S 32.56, encoder 25.80, decoder 25.28."""
    with torch.device("meta"):
        autoencoder = AtomAutoencoder()
        networks = (LatentDiT(), autoencoder.encoder, autoencoder.decoder)
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert [round(count / 1e6, 2) for count in counts] == [32.56, 25.80, 25.28]
