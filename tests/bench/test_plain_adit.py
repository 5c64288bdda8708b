"""The baseline is what it says it is: the published figures come out of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from polydit.bench.plain_adit import PlainDiT, flow_loss, interpolate, sample_latents
from polydit.bench.plain_autoencoder import PlainAutoencoder
from polydit.core.testing.golden import GoldenCase

ReadCase = Callable[[str], GoldenCase]


def denoiser_of(case: GoldenCase) -> PlainDiT:
    config = dict(case.config.get("denoiser", case.config))
    config.pop("class_dropout_prob")
    model = PlainDiT(**config).eval()
    model.load_state_dict(case.state_dict())
    return model


def autoencoder_of(case: GoldenCase) -> PlainAutoencoder:
    config = case.config["decoder"]
    sizes = {name: config[name] for name in ("d_model", "nhead", "dim_feedforward", "num_layers")}
    model = PlainAutoencoder(latent_dim=case.config["latent_dim"], **sizes).eval()
    model.load_state_dict(case.state_dict())
    return model


def padded(flat: Tensor, num_atoms: Tensor) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(flat.split(num_atoms.tolist()), batch_first=True)


def mask_of(num_atoms: Tensor) -> Tensor:
    return torch.arange(int(num_atoms.max())) < num_atoms[:, None]


@torch.no_grad()
def test_denoiser(read_case: ReadCase) -> None:
    case = read_case("adit-denoiser")
    model, given = denoiser_of(case), case.inputs()
    mask, time = given["mask"].bool(), given["t"][:, 0]
    arguments = (given["x"], time, given["dataset_idx"], given["spacegroup"], mask)
    guided = model.guided(*arguments, given["x_sc"], 2.0)
    case.compare(
        {
            "pred": model(*arguments, given["x_sc"]),
            "pred_without_self_conditioning": model(*arguments),
            "guided": torch.cat([guided, guided]),  # the published code writes it into both halves
        }
    )


@torch.no_grad()
def test_sampler_and_training(read_case: ReadCase) -> None:
    case = read_case("adit-sampler")
    model, given = denoiser_of(case), case.inputs()
    mask, time = given["mask"].bool(), given["t"][:, 0]
    labels = (given["dataset_idx"], given["spacegroup"], mask)
    settings = case.config["sampler"]
    options = {"num_steps": settings["num_timesteps"], "min_time": settings["min_t"]}
    guided = sample_latents(model, given["x_0"], *labels, guidance_scale=settings["cfg_scale"], **options)
    plain = sample_latents(model, given["x_0"], *labels, guidance_scale=None, **options)
    x_t = interpolate(given["x_1"], given["noise"], time, mask)
    loss = flow_loss(model(x_t, time, *labels), given["x_1"], time, mask) / 100
    case.compare(
        {
            "guided_sample": guided.predictions[-1],
            "guided_state_after_2_steps": guided.states[2],
            "guided_state_before_last": guided.states[-1],
            "plain_sample": plain.predictions[-1],
            "plain_state_after_2_steps": plain.states[2],
            "x_t": x_t,
            "loss_per_system_over_100": loss,
            "loss_over_100": loss.mean()[None],
        }
    )
    assert len(guided.predictions) == settings["num_timesteps"]


@torch.no_grad()
def test_encoder(read_case: ReadCase) -> None:
    case = read_case("adit-vae-encode")
    model, given = autoencoder_of(case), case.inputs()
    sizes = given["num_atoms"]
    mask = mask_of(sizes)
    atoms = [padded(given[name], sizes) for name in ("atom_types", "pos", "frac_coords")]
    mean, std = model.encode(*atoms, mask)
    case.check("mean", mean[mask])
    case.check("std", std[mask])


@torch.no_grad()
def test_decoder(read_case: ReadCase) -> None:
    case = read_case("adit-vae-decode")
    model, given = autoencoder_of(case), case.inputs()
    sizes = given["num_atoms"]
    mask = mask_of(sizes)
    decoded = model.decode(padded(given["z"], sizes), mask)
    case.compare(
        {
            "atom_types": decoded.atom_types[mask],
            "pos": decoded.positions[mask],
            "frac_coords": decoded.frac_coords[mask],
            "lengths": decoded.lengths,
            "angles": decoded.angles,
        }
    )


@torch.no_grad()
@pytest.mark.parametrize("fast_path", [True, False])
def test_torch_fast_paths_do_not_change_the_baseline(fast_path: bool, read_case: ReadCase) -> None:
    """torch replaces the tanh-GELU of its own encoder layers in eval mode; ours must not let it."""
    case = read_case("adit-vae-decode")
    model, given = autoencoder_of(case), case.inputs()
    sizes = given["num_atoms"]
    mask = mask_of(sizes)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast_path)
    try:
        decoded = model.decode(padded(given["z"], sizes), mask)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    case.check("pos", decoded.positions[mask])
