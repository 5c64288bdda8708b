"""`molgen convert`: a published checkpoint to a folder that `--checkpoint` takes."""

from __future__ import annotations

from functools import partial

import click

from polydit.core.cli.conversion import Conversion, conversion_options

_ABOUT = (
    "An all-atom diffusion transformer (Joshi et al. 2025), read by `molgen convert` from a published Lightning "
    "checkpoint with its {weights} weights. Data, figures and limits are those of its authors."
)


@click.command()
@click.option(
    "--weights", type=click.Choice(["raw", "ema"]), default="raw",
    help="The trained weights, as the published evaluation uses them, or their running average.",
)  # fmt: skip
@click.option(
    "--num-heads", type=click.IntRange(min=1), default=None, show_default="read from the file",
    help="Attention heads, if the file does not tell.",
)  # fmt: skip
@conversion_options
def convert(weights: str, num_heads: int | None, call: Conversion) -> None:
    """Turn a published ADiT checkpoint into our layout.

    SOURCE is a Lightning file (.ckpt) of the autoencoder alone, or of the latent diffusion model, which holds both
    networks. It is read without running any code in it.

    \b
    molgen convert ldm.ckpt --out adit/
    molgen sample --checkpoint adit/ --out run/
    """
    from polydit.molgen.convert import read_adit, save_adit

    models = read_adit(call.source, weights=weights, num_heads=num_heads)
    networks = {"autoencoder": models.autoencoder, "denoiser": models.denoiser}
    parameters = {name: network.num_parameters() for name, network in networks.items() if network is not None}
    call.finish(
        partial(save_adit, models),
        about=_ABOUT.format(weights=weights),
        weights=weights,
        facts={"parameters": parameters},
        lines=[f"{name}: {count:,} parameters" for name, count in parameters.items()],
    )
