"""One item, or one tile against its reference, as a card of the page."""

from __future__ import annotations

from pathlib import Path

from polydit.core.jobs import ManifestRecord, safe_name
from polydit.core.report import Badge, Card, compare, strip
from polydit.core.report.markup import Markup
from polydit.vstain.evaluate.inputs import Virtual
from polydit.vstain.evaluate.match import Pair
from polydit.vstain.evaluate.tiles import TileScores
from polydit.vstain.report import views
from polydit.vstain.report.drawings import dab_map, element, outlined
from polydit.vstain.report.views import View

_NAMES = ("H&E", "virtual stain")
_SETTINGS = ("seed", "num_steps", "guidance_scale")


def item_card(record: ManifestRecord, virtual: Virtual) -> Card:
    """An item of a run: H&E and stain under a slider, the DAB map, the outline of the mask.

    Args:
        record: Its line in the manifest.
        virtual: Its files.

    Raises:
        PolyditError: Its stain cannot be read.
    """
    near, all_of_it = views.detail(virtual), views.whole(virtual)
    pictures = _pictures(all_of_it, virtual.id)
    if near is not None:
        pictures += _pictures(near, f"{virtual.id}, the place of most DAB")
    return Card(
        title=virtual.id,
        pictures=pictures,
        badges=[Badge(virtual.stain)] if virtual.stain else [],
        facts=[(name, text_of(value)) for name, value in figures_of(record).items()],
        links=[(_kind(output["path"], record["id"]), output["path"]) for output in record["outputs"]],
    )


def tile_card(tile: TileScores, pair: Pair) -> Card:
    """A tile against its reference.

    Args:
        tile: What was measured.
        pair: Where it lies.

    Raises:
        PolyditError: It cannot be read.
    """
    *images, of_slide = views.tile(pair, tile.x, tile.y)
    names = ("virtual stain", "real stain")
    labels = [f"{name} of {pair.virtual.id}" for name in names]
    maps = [
        (element(dab_map(image), label=f"DAB of the {label}"), f"DAB of the {name}")
        for image, label, name in zip(images, labels, names, strict=True)
    ]
    before, after = (element(image, label=label) for image, label in zip(images, labels, strict=True))
    place = f" at {tile.x}, {tile.y}" if of_slide else ""
    facts = [
        ("SSIM", f"{tile.ssim:.3f}"),
        ("Dice", f"{tile.dice:.3f}"),
        ("positive area", f"{100 * tile.positive / tile.pixels:.1f} %"),
        ("of the real stain", f"{100 * tile.positive_reference / tile.pixels:.1f} %"),
        ("nuclei", f"{tile.nuclei}"),
        ("of the real stain", f"{tile.nuclei_reference}"),
    ]
    return Card(
        title=f"{pair.virtual.id}{place}",
        pictures=[compare(before, after, names=names), strip(maps)],
        facts=facts,
    )


def figures_of(record: ManifestRecord) -> dict[str, int | float]:
    """What a run has measured of an item, by names for a person; its settings are left out.

    Args:
        record: Its line in the manifest.
    """
    return {
        name.replace("_percent", " (%)").replace("_", " "): value
        for name, value in record["measures"].items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in _SETTINGS
    }


def text_of(value: int | float) -> str:
    """A number as a person reads it."""
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value:,.0f}"


def _pictures(view: View, label: str) -> list[Markup]:
    stain = element(view.ihc, label=f"Virtual stain of {label}")
    first = stain
    if view.he is not None:
        first = compare(element(view.he, label=f"H&E of {label}"), stain, names=_NAMES)
    outline = element(outlined(view.ihc, view.mask), label=f"Outline of the positive cells of {label}")
    rows = [
        (element(dab_map(view.ihc), label=f"DAB of {label}"), "DAB"),
        (outline, "predicted mask" if view.predicted else "mask by DAB"),
    ]
    return [first, strip(rows)]


def _kind(path: str, item: str) -> str:
    """What a file is called on the card: the ending of its name."""
    return Path(path).name.removeprefix(safe_name(item)).lstrip(".").upper()
