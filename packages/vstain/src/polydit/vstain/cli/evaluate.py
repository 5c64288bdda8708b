"""`vstain evaluate`: the field's figures of virtual stains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from polydit.core.cli.evaluation import FiguresFolder, exit_for, figures_option, name_rejected, replace_option
from polydit.core.cli.options import SharedOption, config_option, limit_option, output_options
from polydit.core.cli.output import Output
from polydit.core.errors import InputError

if TYPE_CHECKING:
    from polydit.vstain.evaluate import Evaluation
    from polydit.vstain.evaluate.features import FeatureNetwork

_FILES = ("figures.json", "tiles.csv", "baseline.csv", "rejected.csv")

reference_option = SharedOption(
    "--reference", type=click.Path(exists=True, path_type=Path), metavar="PATH",
    help="The real stains: DATASET/test/IHC, another folder of images of the same names, or one slide.",
)  # fmt: skip
masks_option = SharedOption(
    "--masks", type=click.Path(exists=True, path_type=Path), metavar="PATH", default=None,
    show_default="the folder mask beside the references",
    help="Their masks, a folder or the mask of the one slide; without any they are derived from the references' DAB.",
)  # fmt: skip
baseline_option = SharedOption(
    "--baseline", type=click.Path(exists=True, path_type=Path), metavar="RUN", default=None, show_default="none",
    help="Another run over the same H&E: both are measured where both have an item.",
)  # fmt: skip
features_option = SharedOption(
    "--features", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE", default=None,
    show_default="none",
    help="TorchScript of a network: distances in its features too, which are FID, KID or LPIPS with the weights of "
    "those (inception-2015-12-05.pt or vgg16.pt of StyleGAN3). Its program is run: name only a file that you trust.",
)  # fmt: skip


@click.command()
@click.argument("run", metavar="RUN_OR_FOLDER", type=click.Path(exists=True, path_type=Path))
@reference_option(required=True)
@masks_option
@baseline_option
@features_option
@figures_option(help="Where to write figures.json and the figures of every tile.")
@replace_option
@limit_option(help="At most this many items.")
@config_option
@output_options
def evaluate(
    run: Path,
    reference: Path,
    masks: Path | None,
    baseline: Path | None,
    features: Path | None,
    out: Path | None,
    overwrite: bool,
    limit: int | None,
    output: Output,
) -> None:
    """Measure the virtual stains in RUN_OR_FOLDER, such as a run of "vstain run", against real ones.

    \b
    vstain evaluate run/ --reference ds/test/IHC --out figures/
    vstain evaluate run/ --reference ds/test/IHC --baseline gan/
    vstain evaluate images/ --reference real/ --masks real-masks/

    An item is measured against the reference of its name; one whose reference is of another stain is left out and
    counted. Slides are measured in tiles of 512. No figure needs downloaded weights, but those of --features. Exit
    code 3 means that some items could not be measured; they are named on stderr.
    """
    from polydit.vstain.evaluate import evaluate_stains, match_runs

    if limit == 0:
        raise InputError("no item is left to measure", where="--limit 0")
    folder = FiguresFolder(out, _FILES)
    folder.check(overwrite=overwrite)
    network = _network(features)
    runs = match_runs(run, reference, masks=masks, baseline=baseline, limit=limit)
    total = sum(len(matched.pairs) for matched in runs)
    with folder.held(), output.progress(total, what="evaluate") as bar:
        found = evaluate_stains(runs, features=network, on_item=bar.update)
        folder.write(found.files())
    name_rejected(found.rejected, output)
    if out is not None:
        output.note(f"Written to {out}")
    _print(found, output)
    exit_for(found.rejected)


def _network(path: Path | None) -> FeatureNetwork | None:
    if path is None:
        return None
    from polydit.vstain.evaluate.features import FeatureNetwork

    return FeatureNetwork(path)


def _print(found: Evaluation, output: Output) -> None:
    if output.json:
        output.summary(found.to_json())
        return
    for line in found.notes():
        output.note(line)
    output.table([
        {
            "figure": score.name,
            "value": score.text(),
            "95 % interval": score.text_interval(),
            **({"baseline": found.baseline.get(score.name).text()} if found.baseline else {}),
            "tiles": f"{score.count:,}",
            "method": score.method,
        }
        for score in found.run.scores
    ])  # fmt: skip
