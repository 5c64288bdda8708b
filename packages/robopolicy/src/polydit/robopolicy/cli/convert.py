"""`robopolicy convert`: a published checkpoint to a folder of ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from polydit.core.cli.options import out_option, output_options, overwrite_option
from polydit.core.cli.output import Output
from polydit.core.errors import InputError

if TYPE_CHECKING:
    from polydit.robopolicy.convert import Published

_CARD = """---
source: {name}
source_sha256: {digest}
licence: as stated where {name} was published
---
# Converted from {name}

{paper}, read by `robopolicy convert` from its published checkpoint. Data, figures and limits are those of its authors.
"""
_PAPERS = {
    "rdt": "RDT-1B (Liu et al. 2024, arXiv:2410.07864)",
    "mode": "Mixture of Expert Denoisers (Reuss et al. 2024, arXiv:2412.12953)",
    "pad": "Prediction with Action (Guo et al. 2024, arXiv:2411.18179)",
}


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--from", "model", type=click.Choice(list(_PAPERS)), required=True, help="What SOURCE is of.")
@out_option(help="Checkpoint folder to make.", metavar="DIR")
@overwrite_option(help="Replace a checkpoint that is there.")
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), default=None, show_default="the network alone",
    metavar="PATH", help="A data set of your robot, for scales, frame rate and cameras; needs --language.",
)  # fmt: skip
@click.option(
    "--language", type=click.Path(exists=True, path_type=Path), default=None, metavar="PATH", show_default=False,
    help="Embeddings of the instructions by the language model that the network was trained with.",
)  # fmt: skip
@click.option(
    "--camera", "cameras", multiple=True, metavar="NAME", show_default="all of the data, in their order",
    help="A camera of the data; repeat it in the order of the network's.",
)  # fmt: skip
@click.option(
    "--num-heads", type=click.IntRange(min=1), default=None, show_default="read from the file",
    help="Attention heads of PAD, if the file does not tell.",
)  # fmt: skip
@output_options
def convert(
    source: Path,
    model: str,
    out: Path,
    overwrite: bool,
    data: Path | None,
    language: Path | None,
    cameras: tuple[str, ...],
    num_heads: int | None,
    output: Output,
) -> None:
    """Turn a published checkpoint of RDT, MoDE or PAD into our layout.

    SOURCE is the published file, or the folder that it came in. It is read without running any code in it.

    \b
    robopolicy convert rdt-170m/ --from rdt --out rdt/
    robopolicy convert MoDE_CALVIN_ABC_1/ --from mode --data robot/ --language clip/ --out policy/
    robopolicy train --checkpoint policy/ --data robot/ --out tuned/

    A published file knows networks, not robots: it becomes a policy with --data and --language.
    """
    from polydit.core.checkpoints.files import sha256_of
    from polydit.core.checkpoints.folder import CARD, check_free, checkpoint_folder

    check_free(out, overwrite=overwrite)
    if (data is None) != (language is None):
        raise InputError("a policy needs both", where="--data and --language")
    from polydit.robopolicy.convert import read_published

    published = read_published(model, source, heads=num_heads)
    digest = sha256_of(source)
    with checkpoint_folder(out, overwrite=overwrite) as folder:
        if data is None or language is None:
            published.save(folder)
        else:
            _save_policy(published, data, language, cameras, folder)
        card = _CARD.format(name=source.resolve().name, digest=digest, paper=_PAPERS[model])
        (folder / CARD).write_text(card, encoding="utf-8")
    if data is None:
        output.note("It is the network alone. With --data and --language it becomes a policy for your robot.")
    record = {"out": str(out), "source": str(source), "sha256": digest, "model": model}
    count = published.network.num_parameters()
    output.summary({**record, "parameters": count}, f"network: {count:,} parameters", f"checkpoint: {out}")


def _save_policy(
    published: Published, data: Path, language: Path, cameras: tuple[str, ...], folder: Path
) -> None:
    from polydit.robopolicy.data.readers import read_dataset
    from polydit.robopolicy.language import Instructions

    dataset = read_dataset(data)
    policy = published.policy(dataset, Instructions.read(language), cameras or dataset.info.cameras)
    policy.save_pretrained(folder)
