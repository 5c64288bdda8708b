"""facebookresearch/all-atom-diffusion-transformer: autoencoder, denoiser, sampler and losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from polydit.core.objectives.flow import FlowMatching, LinearPath, NoisySample
from polydit.core.sampling import denoise, guided_model
from polydit.core.testing.golden import GoldenCase
from polydit.molgen.batch import CRYSTAL, AtomBatch
from polydit.molgen.convert import autoencoder_from_published, denoiser_from_published
from polydit.molgen.model import AtomAutoencoder, LatentDiT
from polydit.molgen.pipeline import flow_scheduler
from polydit.molgen.train import AutoencoderLoss


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    if "latent_dim" in case.config:
        vae = autoencoder_from_published(case.state_dict(), heads=case.config["encoder"]["nhead"])
        return decode(vae, case.inputs()) if "z" in case.inputs() else encode(vae, case.inputs())
    config = case.config.get("denoiser", case.config)
    model = denoiser_from_published(case.state_dict(), heads=config["nhead"])
    return sampler(model, case) if "sampler" in case.config else denoiser(model, case)


def denoiser(model: LatentDiT, case: GoldenCase) -> Mapping[str, Tensor]:
    given = case.inputs()
    call = bind(model, given, given["t"][:, 0], doubled=False)
    both = bind(model, given, given["t"][:, 0], doubled=True)
    x, previous = given["x"], given["x_sc"]
    guided = guided_model(
        partial(both, previous=torch.cat([previous, previous])), x, case.config.get("cfg_scale", 2.0)
    )
    return {
        "pred": call(x, previous=previous),
        "pred_without_self_conditioning": call(x),
        "guided": torch.cat([guided, guided]),  # published code writes it into both halves
    }


def bind(model: LatentDiT, given: Mapping[str, Tensor], t: Tensor, *, doubled: bool) -> Callable[..., Tensor]:
    """The denoiser with time, labels and padding of the case; `doubled`: the same items with null labels after them."""
    labels = {"kind": given["dataset_idx"], "spacegroup": given["spacegroup"]}
    mask = given["mask"].bool()
    if doubled:
        labels = {name: torch.cat([label, torch.zeros_like(label)]) for name, label in labels.items()}
        mask, t = torch.cat([mask, mask]), torch.cat([t, t])

    def call(x: Tensor, previous: Tensor | None = None) -> Tensor:
        return model(x, t, **labels, mask=mask, self_condition=previous)

    return call


def sampler(model: LatentDiT, case: GoldenCase) -> Mapping[str, Tensor]:
    given, settings = case.inputs(), case.config["sampler"]
    times = np.linspace(settings["min_t"], 1.0, settings["num_timesteps"])

    def run(scale: float | None) -> tuple[Tensor, list[Tensor]]:
        """The sample, and the state at every call of the network."""
        states = []

        def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
            states.append(x)
            t = (1.0 - timestep / 1000.0).expand(len(x))
            if scale is None:
                return bind(model, given, t, doubled=False)(x, previous)
            twice = None if previous is None else torch.cat([previous, previous])
            return guided_model(partial(bind(model, given, t, doubled=True), previous=twice), x, scale)

        scheduler = flow_scheduler()
        scheduler.set_timesteps(sigmas=(1.0 - times[:-1]).tolist())
        sample = denoise(
            predict,
            given["x_0"],
            scheduler,
            prediction="data",
            self_condition=settings["self_condition"],
            finish_with_prediction=True,
        )
        return sample, states

    guided, guided_states = run(settings["cfg_scale"])
    plain, plain_states = run(None)
    return {
        "guided_sample": guided,
        "guided_state_after_2_steps": guided_states[2],
        "guided_state_before_last": guided_states[-1],
        "plain_sample": plain,
        "plain_state_after_2_steps": plain_states[2],
        **training(model, given),
    }


def training(model: LatentDiT, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The noisy latents and the loss of one training step."""
    mask, t = given["mask"].bool(), given["t"][:, 0]
    prior = given["noise"] - given["noise"].mean(1, keepdim=True)  # published: over padding, too
    x_t = LinearPath.interpolate(prior, given["x_1"], t) * mask[..., None]
    prediction = bind(model, given, t, doubled=False)(x_t)
    objective = FlowMatching(prediction="data", max_weight_time=0.9)
    loss = objective.loss(prediction, NoisySample(x_t, t, prior, given["x_1"]), mask)
    return {"x_t": x_t, "loss_per_system_over_100": loss / 100, "loss_over_100": loss.mean()[None] / 100}


def padded(flat: Tensor, num_atoms: Tensor) -> Tensor:
    """Concatenated atoms to one row per structure."""
    return torch.nn.utils.rnn.pad_sequence(flat.split(num_atoms.tolist()), batch_first=True)


def encode(vae: AtomAutoencoder, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Encoder, posterior, decoder of its mode, and losses."""
    sizes = given["num_atoms"]
    mask = padded(torch.ones(int(sizes.sum()), dtype=torch.bool), sizes)
    batch = AtomBatch(
        numbers=padded(given["atom_types"], sizes),
        positions=padded(given["pos"], sizes),
        frac_coords=padded(given["frac_coords"], sizes),
        mask=mask,
        lengths_scaled=given["lengths_scaled"],
        angles=given["angles_radians"],
        kind=given["dataset_idx"] + CRYSTAL,
        spacegroup=torch.zeros_like(sizes),
    )
    features: list[Tensor] = []
    hook = vae.encoder.register_forward_hook(lambda module, inputs, output: features.append(output))
    posterior = vae.encode(batch)
    hook.remove()
    decoded = vae.decode(posterior.mean, mask)
    criterion = AutoencoderLoss()
    names = {"types": "atom_types", "positions": "pos"}
    terms = criterion.terms(decoded, posterior, batch)
    return {
        "encoder_output": features[0][mask],
        "moments": vae.to_moments(features[0])[mask],
        "mean": posterior.mean[mask],
        "std": torch.exp(0.5 * posterior.logvar)[mask],
        "kl_per_atom": posterior.kl()[mask],
        **decode(vae, {"z": posterior.mean[mask], "num_atoms": sizes}),
        "loss": criterion(decoded, posterior, batch)["loss"][None],
        **{
            f"unscaled_loss_{names.get(name, name)}": term if term.ndim == 1 else term[mask]
            for name, term in terms.items()
        },
    }


def decode(vae: AtomAutoencoder, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    sizes = given["num_atoms"]
    mask = padded(torch.ones(int(sizes.sum()), dtype=torch.bool), sizes)
    decoded = vae.decode(padded(given["z"], sizes), mask)
    return {
        "atom_types": decoded.type_logits[mask],
        "pos": decoded.positions_nm[mask],
        "frac_coords": decoded.frac_coords[mask],
        "lengths": decoded.lengths_scaled,
        "angles": decoded.angles,
    }
