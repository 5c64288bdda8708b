"""The layout of ShapeNetCore.v2.PC15k (PointFlow): `<root>/<synset id>/{train,val,test}/<model id>.npy`."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Float32, Shaped

from polydit.core.datasets.folder import DatasetKind
from polydit.core.datasets.splits import SPLITS, Split
from polydit.core.errors import InputError
from polydit.core.jobs.files import atomic_file

# WordNet's numbers of ShapeNetCore.v2's 55 categories, by the names that PointFlow gave them.
SYNSETS = {
    "airplane": "02691156", "bag": "02773838", "basket": "02801938", "bathtub": "02808440", "bed": "02818832",
    "bench": "02828884", "birdhouse": "02843684", "bookshelf": "02871439", "bottle": "02876657", "bowl": "02880940",
    "bus": "02924116", "cabinet": "02933112", "camera": "02942699", "can": "02747177", "cap": "02954340",
    "car": "02958343", "cellphone": "02992529", "chair": "03001627", "clock": "03046257", "dishwasher": "03207941",
    "earphone": "03261776", "faucet": "03325088", "file": "03337140", "guitar": "03467517", "helmet": "03513137",
    "jar": "03593526", "keyboard": "03085013", "knife": "03624134", "lamp": "03636649", "laptop": "03642806",
    "mailbox": "03710193", "microphone": "03759954", "microwave": "03761084", "monitor": "03211117",
    "motorcycle": "03790512", "mug": "03797390", "piano": "03928116", "pillow": "03938244", "pistol": "03948459",
    "pot": "03991062", "printer": "04004475", "remote_control": "04074963", "rifle": "04090263",
    "rocket": "04099429", "skateboard": "04225987", "sofa": "04256520", "speaker": "03691459", "stove": "04330267",
    "table": "04379243", "telephone": "04401088", "tin_can": "02946921", "tower": "04460130", "train": "04468005",
    "vessel": "04530566", "washer": "04554684",
}  # fmt: skip
_NAMES = {synset: name for name, synset in SYNSETS.items()}


def category_name(folder: str) -> str:
    """The category of a folder: PointFlow's name of a synset id, else the folder's own name."""
    return _NAMES.get(folder, folder)


def category_folder(category: str) -> str:
    """The folder of a category: its synset id if it has one, else its name."""
    return SYNSETS.get(category, category)


class SplitFolder(NamedTuple):
    """One split of one category."""

    category: str
    split: Split
    path: Path

    def files(self) -> list[Path]:
        """Its shapes in the order of their names; the official reader's order depends on the file system."""
        return sorted(path for path in self.path.glob("*.npy") if path.is_file())


def find_splits(path: Path) -> list[SplitFolder]:
    """The splits that a path means; none if it is of another layout.

    The path is a data set, one category of it, one split of a category, or `<data set>/val`: that split of all
    categories.
    """
    if path.is_dir():
        if below := _below(path):
            return below
        if path.name in SPLITS and _is_split(path):
            return [SplitFolder(category_name(path.absolute().parent.name), _split(path.name), path)]
        return [split for child in sorted(path.iterdir()) if child.is_dir() for split in _below(child)]
    if path.name in SPLITS and path.parent.is_dir():
        return [split for split in find_splits(path.parent) if split.split == path.name]
    return []


def _below(folder: Path) -> list[SplitFolder]:
    """The splits of one category."""
    name = category_name(folder.absolute().name)
    return [SplitFolder(name, split, folder / split) for split in SPLITS if _is_split(folder / split)]


def _is_split(folder: Path) -> bool:
    return folder.is_dir() and next(folder.glob("*.npy"), None) is not None


def _split(name: str) -> Split:
    return cast("Split", name)


SHAPES = DatasetKind(
    noun="shapes",
    is_there=lambda folder: bool(find_splits(folder)),
    files=tuple(f"*/{split}/*.npy" for split in SPLITS),
    folders=(*(f"*/{split}" for split in SPLITS), "*"),
    packages=("polydit-pointgen", "numpy", "trimesh"),
)


def part_of(points: Shaped[np.ndarray, "n 3"], split: Split) -> Shaped[np.ndarray, "m 3"]:
    """The points that PointFlow uses of a shape: the first two thirds in train, the last third in val and test.

    Of 15,000 points these are the first 10,000 and the last 5,000.
    """
    first = len(points) * 2 // 3
    return points[:first] if split == "train" else points[first:]


def shape_path(root: Path, category: str, split: Split, name: str) -> Path:
    """Where a shape stands in a data set."""
    return root / category_folder(category) / split / f"{name}.npy"


def write_shape(path: Path, points: Float32[np.ndarray, "n 3"]) -> None:
    """Writes a shape whole or not at all; its folder is made if it is missing.

    Nothing is forced to the disk here: `shapes_there` finds what a power cut has cost.

    Raises:
        OSError: The system refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, sync=False) as handle:
        handle.write(npy_bytes(points))


def npy_bytes(points: Float32[np.ndarray, "n 3"]) -> bytes:
    """Points as an NPY file: the same bytes on every machine."""
    handle = BytesIO()
    np.lib.format.write_array(handle, np.ascontiguousarray(points, "<f4"), version=(1, 0))
    return handle.getvalue()


def shapes_there(root: Path, num_points: int) -> set[Path]:
    """The shapes in a data set of ours that are whole: those of the size that so many points take."""
    header = BytesIO()
    described = {"descr": "<f4", "fortran_order": False, "shape": (num_points, 3)}
    np.lib.format.write_array_header_1_0(header, described)
    size = header.tell() + num_points * 12
    return {path for split in find_splits(root) for path in split.files() if path.stat().st_size == size}


def count_shapes(root: Path) -> dict[str, dict[str, int]]:
    """Shapes by category and split.

    Raises:
        InputError: The folder has no split with a shape in it.
    """
    counts: dict[str, dict[str, int]] = {}
    for split in find_splits(root):
        counts.setdefault(split.category, {})[split.split] = len(split.files())
    if not counts:
        raise InputError(
            "the folder is no data set", where=str(root), expected="<category>/{train,val,test}/*.npy"
        )
    return counts
