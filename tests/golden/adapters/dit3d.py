"""DiT-3D: the network with and without windows, its diffusion, and the metrics of its field."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from polydit.core.objectives import GaussianDiffusion
from polydit.core.sampling import guided_model
from polydit.core.testing.golden import GoldenCase
from polydit.pointgen.convert import point_dit_from_published
from polydit.pointgen.model import PointDiT
from polydit.pointgen.voxels import Cells, voxel_coordinates

RELATIVE = ("pred_xstart",)  # hundreds at t = 999, where the published float32 is off by 1.2e-4


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    if "betas" in case.output_names:
        return diffusion(case)
    if "lgan_mmd-CD" in case.output_names:
        return metrics(case)
    return forwards(case)


def forwards(case: GoldenCase) -> Mapping[str, Tensor]:
    config, inputs = case.config, case.inputs()
    window, blocks = config.get("window_size", 0), config.get("window_block_indexes", ())
    build = {"heads": config["num_heads"], "voxels": config["input_size"]}
    model = point_dit_from_published(case.state_dict(), **build, window=window, window_blocks=blocks)
    points = inputs["x"].transpose(1, 2).contiguous()
    coordinates = voxel_coordinates(points, config["input_size"])
    grid = Cells.of(coordinates, config["input_size"]).mean(points)
    found = {
        "forward": model(points, inputs["t"], inputs["y"]),
        "voxel_coords": coordinates,
    }
    if blocks:
        plain = point_dit_from_published(case.state_dict(), **build)
        found["forward_unwindowed"] = plain(points, inputs["t"], inputs["y"])
    found["cfg"] = guided(model, points, inputs)
    published = {name: value.transpose(1, 2) for name, value in found.items()}
    tokens = model.dit.patch_embed(grid) + model.dit.positions
    return {**published, "voxels": grid, "tokens": tokens}


def guided(model: PointDiT, points: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """Guidance 3; the published code takes the first half of the batch twice, its second labels are the null ones."""
    half, t, labels = points[: len(points) // 2], inputs["t"], inputs["y_cfg"]
    one = guided_model(lambda doubled: model(doubled, t, labels), half, 3.0)
    return torch.cat([one, one])


def diffusion(case: GoldenCase) -> Mapping[str, Tensor]:
    inputs, config = case.inputs(), case.config["schedule"]
    betas = np.linspace(config["start"], config["end"], config["T"])
    process = GaussianDiffusion(betas, precision=np.float32)
    sizes = case.config["model"]
    model = point_dit_from_published(case.state_dict(), heads=sizes["num_heads"], voxels=sizes["input_size"])
    x0, x_t, noise = (inputs[name].transpose(1, 2) for name in ("x0", "xt", "noise"))
    t, y = inputs["t"], inputs["y"]
    data = process.data_from(model(x_t, t, y), x_t, t)
    noisy = process.noisy(x0, noise, t)
    first, second = torch.full_like(t, int(t[0])), torch.full_like(t, int(t[0]) - 1)
    once = step(process, process.data_from(model(x_t, first, y), x_t, first), x_t, first, noise)
    found = {
        "q_sample": noisy,
        "pred_xstart": data,
        "p_sample": step(process, data, x_t, t, noise),
        "p_sample_clipped": step(process, data.clamp(-0.5, 0.5), x_t, t, noise),
        "two_steps": step(
            process, process.data_from(model(once, second, y), once, second), once, second, noise
        ),
    }
    every = torch.arange(config["T"])
    one, zero = torch.ones(config["T"], 1), torch.zeros(config["T"], 1)
    return {
        **{name: value.transpose(1, 2) for name, value in found.items()},
        "betas": torch.from_numpy(process.betas),
        "alphas_cumprod": torch.from_numpy(process.alphas_cumprod),
        "posterior_variance": process.posterior(zero, zero, every).log_variance.exp()[:, 0] * (every > 0),
        "posterior_log_variance_clipped": clipped_log_variance(process),
        "posterior_mean_coef1": process.posterior(one, zero, every).mean[:, 0],
        "posterior_mean_coef2": process.posterior(zero, one, every).mean[:, 0],
        "loss": process.loss(model(noisy, t, y), x0, noise, t),
    }


def clipped_log_variance(process: GaussianDiffusion) -> Tensor:
    """As published: the first variance is 0, and its logarithm is cut at that of 1e-20."""
    every = torch.arange(len(process.betas))
    ours = process.posterior(torch.zeros(len(every), 1), torch.zeros(len(every), 1), every).log_variance[:, 0]
    return torch.where(every > 0, ours, np.log(1e-20))


def step(process: GaussianDiffusion, data: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """One ancestral step with the posterior's own variance."""
    posterior = process.posterior(data, x_t, t)
    return posterior.mean + (t > 0)[:, None, None] * (0.5 * posterior.log_variance).exp() * noise


def metrics(case: GoldenCase) -> Mapping[str, Tensor]:
    """The distances of both sets, and every score of them."""
    from polydit.pointgen.evaluate.chamfer import chamfer_matrix
    from polydit.pointgen.evaluate.emd import exact_emd, kernel_emd
    from polydit.pointgen.evaluate.scores import jensen_shannon

    inputs = case.inputs()
    samples = (inputs["sample"] * inputs["sample_scale"]).numpy()
    references = (inputs["ref"] * inputs["ref_scale"]).numpy()
    both = np.concatenate([references, samples])
    emd = np.array([[exact_emd(a, b, squared=False) for b in both] for a in both])
    kernel = [
        kernel_emd(torch.from_numpy(row).expand(samples.shape), torch.from_numpy(samples))
        for row in references
    ]
    cd = chamfer_matrix(list(both))
    found = {
        "M_rs_cd": cd[: len(references), len(references) :],
        "M_rs_emd": emd[: len(references), len(references) :],
        "M_rs_emd_published_kernel": torch.stack(kernel),
        **scores(cd, len(references), "CD"),
        **scores(emd, len(references), "EMD"),
        "jsd": [jensen_shannon(samples, references).value],
    }
    return {name: torch.as_tensor(found[name]) for name in case.output_names}


def scores(distances: np.ndarray, references: int, name: str) -> dict[str, list[float]]:
    """Under the names of the published code."""
    from polydit.pointgen.evaluate.scores import Neighbours, neighbour_scores

    distances = distances.copy()
    np.fill_diagonal(distances, np.inf)
    is_reference = np.arange(len(distances)) < references
    ours = {
        score.name: score.value for score in neighbour_scores(Neighbours(distances, is_reference), "x", "")
    }
    names = {
        f"lgan_mmd-{name}": "mmd-x",
        f"lgan_cov-{name}": "cov-x",
        f"lgan_mmd_smp-{name}": "mmd-smp-x",
        f"1-NN-{name}-acc": "1-nna-x",
        f"1-NN-{name}-acc_t": "1-nna-x-acc_t",
        f"1-NN-{name}-acc_f": "1-nna-x-acc_f",
    }
    return {published: [float(ours[own] or 0.0)] for published, own in names.items()}
