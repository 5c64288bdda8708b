"""`robopolicy convert`: a published checkpoint to a folder of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polydit.core.cli.conversion import Conversion, conversion_options
from polydit.core.errors import InputError

if TYPE_CHECKING:
    from polydit.robopolicy.convert import Published
    from polydit.robopolicy.policy import RobotPolicy

_ABOUT = (
    "{paper}, read by `robopolicy convert` from its published checkpoint. Data, figures and limits are those of its "
    "authors."
)
_PAPERS = {
    "rdt": "RDT-1B (Liu et al. 2024, arXiv:2410.07864)",
    "mode": "Mixture of Expert Denoisers (Reuss et al. 2024, arXiv:2412.12953)",
    "pad": "Prediction with Action (Guo et al. 2024, arXiv:2411.18179)",
}


@click.command()
@click.option("--from", "model", type=click.Choice(list(_PAPERS)), required=True, help="What SOURCE is of.")
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
@conversion_options
def convert(
    model: str,
    data: Path | None,
    language: Path | None,
    cameras: tuple[str, ...],
    num_heads: int | None,
    call: Conversion,
) -> None:
    """Turn a published checkpoint of RDT, MoDE or PAD into our layout.

    SOURCE is the published file, or the folder that it came in. It is read without running any code in it.

    \b
    robopolicy convert rdt-170m/ --from rdt --out rdt/
    robopolicy convert MoDE_CALVIN_ABC_1/ --from mode --data robot/ --language clip/ --out policy/
    robopolicy train --checkpoint policy/ --data robot/ --out tuned/

    A published file knows networks, not robots: it becomes a policy with --data and --language.
    """
    if (data is None) != (language is None):
        raise InputError("a policy needs both", where="--data and --language")
    from polydit.robopolicy.convert import read_published

    published = read_published(model, call.source, heads=num_heads)
    save: Callable[[Path], object]
    if data is None or language is None:
        save = published.save
        call.output.note(
            "It is the network alone. With --data and --language it becomes a policy for your robot."
        )
    else:
        save = _policy(published, data, language, cameras).save_pretrained
    count = published.network.num_parameters()
    call.finish(
        save,
        about=_ABOUT.format(paper=_PAPERS[model]),
        facts={"model": model, "parameters": count},
        lines=[f"network: {count:,} parameters"],
    )


def _policy(published: Published, data: Path, language: Path, cameras: tuple[str, ...]) -> RobotPolicy:
    from polydit.robopolicy.data.readers import read_dataset
    from polydit.robopolicy.language import Instructions

    dataset = read_dataset(data)
    return published.policy(dataset, Instructions.read(language), cameras or dataset.info.cameras)
