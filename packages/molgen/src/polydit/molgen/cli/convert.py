"""`molgen convert`: a published checkpoint to a folder that `--checkpoint` takes."""

from __future__ import annotations

from pathlib import Path

import click

from polydit.core.cli.options import out_option, output_options, overwrite_option
from polydit.core.cli.output import Output

_CARD = """---
source: {name}
source_sha256: {digest}
weights: {weights}
licence: as stated where {name} was published
---
# Converted from {name}

An all-atom diffusion transformer (Joshi et al. 2025), read by `molgen convert` from a published Lightning checkpoint
with its {weights} weights. Data, figures and limits are those of its authors.
"""


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@out_option(help="Checkpoint folder to make.", metavar="DIR")
@overwrite_option(help="Replace a checkpoint that is there.")
@click.option(
    "--weights", type=click.Choice(["raw", "ema"]), default="raw",
    help="The trained weights, as the published evaluation uses them, or their running average.",
)  # fmt: skip
@click.option(
    "--num-heads", type=click.IntRange(min=1), default=None, show_default="read from the file",
    help="Attention heads, if the file does not tell.",
)  # fmt: skip
@output_options
def convert(
    source: Path, out: Path, overwrite: bool, weights: str, num_heads: int | None, output: Output
) -> None:
    """Turn a published ADiT checkpoint into our layout.

    SOURCE is a Lightning file (.ckpt) of the autoencoder alone, or of the latent diffusion model, which holds both
    networks. It is read without running any code in it.

    \b
    molgen convert ldm.ckpt --out adit/
    molgen sample --checkpoint adit/ --out run/
    """
    from polydit.core.checkpoints.files import sha256_of
    from polydit.core.checkpoints.folder import CARD, check_free, checkpoint_folder

    check_free(out, overwrite=overwrite)
    from polydit.molgen.convert import read_adit, save_adit

    models = read_adit(source, weights=weights, num_heads=num_heads)
    digest = sha256_of(source)
    with checkpoint_folder(out, overwrite=overwrite) as folder:
        save_adit(models, folder)
        card = _CARD.format(name=source.name, digest=digest, weights=weights)
        (folder / CARD).write_text(card, encoding="utf-8")
    networks = {"autoencoder": models.autoencoder, "denoiser": models.denoiser}
    parameters = {name: network.num_parameters() for name, network in networks.items() if network is not None}
    output.summary(
        {
            "out": str(out),
            "source": str(source),
            "sha256": digest,
            "weights": weights,
            "parameters": parameters,
        },
        *(f"{name}: {count:,} parameters" for name, count in parameters.items()),
        f"checkpoint: {out}",
    )
