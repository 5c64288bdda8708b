"""What a user names on the command line, as virtual stains and the real ones of the same places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from polydit.core.errors import InputError
from polydit.core.jobs.files import safe_name
from polydit.core.jobs.manifest import ManifestRecord
from polydit.core.jobs.run_record import read_run
from polydit.vstain.data.find import PairFile, find_pairs
from polydit.vstain.slides.settings import SUFFIXES

_NO_STAINS: Final = (".mask", ".thumbnail")
_MASK_FOLDER: Final = "mask"
_IMAGE_ENDINGS: Final = (".png", ".ome.tif", ".tif")
_MASK_ENDINGS: Final = (".mask.png", ".mask.tif")


@dataclass(frozen=True, slots=True, kw_only=True)
class Virtual:
    """A virtual stain that lies on the disk.

    Args:
        id: Its name in the run.
        image: The file.
        mask: The predicted mask; None = the model gave none.
        he: The H&E that it was made from; None = not known. It may be gone.
        he_mpp: Its microns per pixel as the run took them; None = as the file says.
        stain: The marker; "" = not known.
        small: Of a slide: the stain at the size of a screen; None = there is none.
        small_he: The same of the H&E.
    """

    id: str
    image: Path
    mask: Path | None = None
    he: Path | None = None
    he_mpp: float | None = None
    stain: str = ""
    small: Path | None = None
    small_he: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What its reference may be called, the likeliest first."""
        return tuple(dict.fromkeys([self.id, *([stem_of(self.he)] if self.he else [])]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A real stain that lies on the disk.

    Args:
        name: By which a virtual stain finds it: the file's name without its ending.
        image: The file.
        mask: Of positive cells; None = there is none.
        stain: The marker; "" = not known.
    """

    name: str
    image: Path
    mask: Path | None = None
    stain: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """An item that could not be measured.

    Args:
        source: Where it stands.
        reason: What is wrong with it.
    """

    source: str
    reason: str


def stem_of(path: Path) -> str:
    """The name of an image without its ending: "a" of "a.ome.tif", "b.c" of "b.c.png"."""
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return stem[: -len(".ome")] if stem.lower().endswith(".ome") else stem


def read_virtual(path: Path) -> Iterator[Virtual | Rejected]:
    """The virtual stains of a run folder, or the images of any other folder.

    Args:
        path: What `vstain run` wrote, or images, each with its mask beside it as `<name>.mask.png` if there is one.

    Raises:
        InputError: There is no image.
    """
    if (path / "run.json").is_file():
        yield from _read_run(path)
        return
    images = _images(path)
    for name, image in images.items():
        masks = [path / (name + ending) for ending in _MASK_ENDINGS]
        yield Virtual(id=name, image=image, mask=next((mask for mask in masks if mask.is_file()), None))


def read_references(path: Path, *, masks: Path | None = None) -> dict[str, Reference]:
    """The real stains by their names.

    Args:
        path: A folder of images, the folder above its folder `IHC`, or one image. A manifest.csv up to two folders
            above says the stain and the mask of each.
        masks: Folder of masks of the same names, or the mask of the one image; None takes those of the manifest, or of
            a folder `mask` beside.

    Raises:
        InputError: There is no image, or no folder of masks.
    """
    folder = path / "IHC" if (path / "IHC").is_dir() else path
    images = {stem_of(path): path} if path.is_file() else _images(folder)
    home = path.parent if path.is_file() else folder
    known, beside = _manifest(home), home.parent / _MASK_FOLDER
    if masks and masks.is_file():
        found = {stem_of(path): masks}
    else:
        found = _images(masks or beside, kind="mask") if masks or beside.is_dir() else {}
    references = {}
    for name, image in images.items():
        pair = known.get(image.resolve())
        listed = pair.mask if pair and not masks else None
        stain = pair.stain if pair else ""
        references[name] = Reference(name=name, image=image, mask=listed or found.get(name), stain=stain)
    return references


def _manifest(folder: Path) -> dict[Path, PairFile]:
    """The rows of the nearest manifest.csv by their stain's file; none if there is none."""
    for above in (folder, *folder.resolve().parents[:2]):
        if (above / "manifest.csv").is_file():
            return {pair.ihc.resolve(): pair for pair in find_pairs(above / "manifest.csv")}
    return {}


def _read_run(folder: Path) -> Iterator[Virtual | Rejected]:
    run = read_run(folder)
    for record in run.failed():
        reason = record["error"]["message"] if "error" in record else "no reason recorded"
        yield Rejected(f"{folder}:{record['id']}", f"it failed in the run: {reason}")
    common = str(run.options.get("stain") or "")
    for item, group in groupby(run.files(), key=lambda file: file[0]["id"]):
        files = list(group)
        yield _of_run(files[0][0], [path for _, path in files], common, f"{folder}:{item}")


def _of_run(record: ManifestRecord, paths: Sequence[Path], stain: str, where: str) -> Virtual | Rejected:
    endings = {path.name[len(safe_name(record["id"])) :]: path for path in paths}
    image = next((endings[end] for end in _IMAGE_ENDINGS if end in endings), None)
    if image is None:
        return Rejected(where, "the run stored no image of it")
    measures, inputs = record["measures"], record["inputs"]
    return Virtual(
        id=record["id"],
        image=image,
        mask=next((endings[end] for end in _MASK_ENDINGS if end in endings), None),
        he=Path(inputs[0]["path"]) if inputs else None,
        he_mpp=measures.get("input_mpp"),
        stain=str(measures.get("stain") or stain),
        small=endings.get(".thumbnail.png"),
        small_he=endings.get(".he.thumbnail.png"),
    )


def _images(folder: Path, kind: str = "image") -> dict[str, Path]:
    """The images of a folder by their names, without the masks and thumbnails of a run."""
    if not folder.is_dir():
        raise InputError("there is no such folder", where=str(folder), expected=f"a folder of {kind}s")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = stem_of(path)
        if path.suffix.lower() not in SUFFIXES or name.endswith(_NO_STAINS):
            continue
        if name in found:
            raise InputError(f"{path.name} and {found[name].name} have one name", where=str(folder))
        found[name] = path
    if not found:
        raise InputError(f"there is no {kind}", where=str(folder), expected=", ".join(sorted(SUFFIXES)))
    return found
