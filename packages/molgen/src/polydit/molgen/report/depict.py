"""Molecules and crystals as pictures: a 3D scene for the core's viewer, and RDKit's 2D drawing made small."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

import numpy as np
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from rdkit import Chem, rdBase
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D

from polydit.core.errors import InputError
from polydit.core.report import Scene
from polydit.core.report.markup import Markup, tag
from polydit.molgen.bonds import edm_bond_orders
from polydit.molgen.data.interop import to_rdkit

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from rdkit.Chem import Mol

    from polydit.molgen.data.structure import Structure

Bonds = list[tuple[int, int, float]]

CONTACT: Final = 1.15
"""Atoms of a crystal are joined when neither has a neighbour nearer than their distance / CONTACT."""

_RADIUS: Final = 0.45  # a sphere's radius in Å is this times the root of the covalent radius
_ON_FACE: Final = 0.04  # of the cell; an atom so close to a face is drawn on the opposite one too
_WIDTH, _HEIGHT = 240, 120
_BOND_PIXELS: Final = 25
# Colours of heteroatoms that can be read on white and on near-black; all others have the colour of the text.
_INK: Final = {
    7: "#4A7DF0", 8: "#DE4B3F", 9: "#2F9E63", 15: "#CF7A1E", 16: "#A88A10", 17: "#2F9E63", 35: "#B5603A",
}  # fmt: skip


def find_bonds(structure: Structure) -> Mol | None:
    """The molecule with its bonds, sanitised; None if the atoms as they lie make none."""
    with rdBase.BlockLogs():
        try:
            return to_rdkit(structure)
        except InputError:
            return None


def molecule_scene(structure: Structure, mol: Mol | None) -> Scene:
    """Balls and sticks of a molecule, its longest direction across and its shortest towards the viewer.

    Args:
        structure: The molecule.
        mol: Its bonds; without them those of EDM's tables are drawn.
    """
    if mol is None:
        orders = edm_bond_orders(structure)
        bonds = [(i, j, float(orders[i, j])) for i, j in np.argwhere(np.triu(orders)).tolist()]
    else:
        bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), b.GetBondTypeAsDouble()) for b in mol.GetBonds()]
    axes = np.linalg.svd(structure.positions - structure.positions.mean(0), full_matrices=True)[2]
    axes *= np.sign(axes[np.arange(3), np.abs(axes).argmax(1)])[:, None]  # else LAPACK chooses the signs
    axes[2] *= np.linalg.det(axes)  # a turn, not a mirror image
    return _scene(structure.numbers, structure.positions, bonds, rotation=_tilt(14.0, 0.0) @ axes)


def crystal_scene(structure: Structure) -> Scene:
    """One cell of a crystal with its edges; c points up.

    Atoms on a face, an edge or a corner are drawn on all the opposite ones too. Sticks join nearest
    neighbours (see `CONTACT`); they are no statement about chemical bonds.
    """
    assert structure.cell is not None, structure.id
    frac, numbers, origin = _with_images(structure.frac_coords, structure.numbers)
    positions = frac @ structure.cell
    nearest = _nearest_distances(structure)[origin]
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    joined = distances <= CONTACT * np.minimum(nearest[:, None], nearest) + 1e-6
    bonds = [(i, j, 1.0) for i, j in np.argwhere(np.triu(joined, k=1)).tolist()]
    c = structure.cell[2] / np.linalg.norm(structure.cell[2])
    a = structure.cell[0] - (structure.cell[0] @ c) * c
    a /= np.linalg.norm(a)
    upright = np.stack([np.cross(c, a), c, a])  # to the right, up, to the viewer
    return _scene(numbers, positions, bonds, cell=structure.cell, rotation=_tilt(16.0, -24.0) @ upright)


def drawing(mol: Mol, *, label: str) -> Markup:
    """RDKit's 2D drawing without explicit hydrogens, as an inline SVG of a few hundred bytes.

    RDKit writes each line as an element with its full style. Here lines and letters of one colour are one
    path each, and black becomes the colour of the text around it.

    Args:
        mol: A sanitised molecule; it is not changed.
        label: What a screen reader says.
    """
    flat = Chem.RemoveHs(mol)
    flat.RemoveAllConformers()
    rdDepictor.Compute2DCoords(flat)
    canvas = rdMolDraw2D.MolDraw2DSVG(_WIDTH, _HEIGHT)
    options = canvas.drawOptions()
    options.clearBackground = False
    options.fixedBondLength = _BOND_PIXELS
    options.setAtomPalette({-1: (0.0, 0.0, 0.0), **{n: _unit_rgb(ink) for n, ink in _INK.items()}})
    canvas.DrawMolecule(flat)
    canvas.FinishDrawing()
    paths = _merged_paths(canvas.GetDrawingText())
    return tag(
        "svg", *paths, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label, stroke_width=1.7,
        stroke_linejoin="round",
    )  # fmt: skip


def _scene(
    numbers: Int[np.ndarray, " n"],
    positions: Float[np.ndarray, "n 3"],
    bonds: Bonds,
    *,
    cell: Float[np.ndarray, "3 3"] | None = None,
    rotation: Float[np.ndarray, "3 3"],
) -> Scene:
    colours = np.rint(255 * jmol_colors[np.minimum(numbers, len(jmol_colors) - 1)]).astype(int)
    return Scene(
        points=positions,
        radii=(_RADIUS * np.sqrt(covalent_radii[numbers])).tolist(),
        colours=["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours],
        bonds=bonds,
        cell=cell,
        rotation=rotation,
    )


def _with_images(
    frac: Float[np.ndarray, "n 3"], numbers: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "m 3"], Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """Coordinates and numbers with the images on opposite faces, and of which atom each is an image."""
    origin = np.arange(len(frac))
    for axis in range(3):
        low, high = frac[:, axis] < _ON_FACE, frac[:, axis] > 1 - _ON_FACE
        shift = np.eye(3)[axis]
        frac = np.concatenate([frac, frac[low] + shift, frac[high] - shift])
        origin = np.concatenate([origin, origin[low], origin[high]])
    return frac, numbers[origin], origin


def _nearest_distances(structure: Structure) -> Float[np.ndarray, " n"]:
    """Distance in Å from each atom to its nearest neighbour, images in the 26 cells around included."""
    shifts = np.array(list(product((-1, 0, 1), repeat=3))) @ structure.cell
    nearest = np.full(structure.num_atoms, np.inf)
    for shift in shifts:
        distances = np.linalg.norm(structure.positions[:, None] - structure.positions - shift, axis=-1)
        distances[distances < 1e-6] = np.inf  # the atom itself
        nearest = np.minimum(nearest, distances.min(1))
    return nearest


def _tilt(x_degrees: float, y_degrees: float) -> Float[np.ndarray, "3 3"]:
    """A turn about the vertical, then one about the horizontal that shows more of the top."""
    angles = np.radians([x_degrees, y_degrees])
    (sx, sy), (cx, cy) = np.sin(angles), np.cos(angles)
    about_y = np.array([[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]])
    return np.array([[1.0, 0.0, 0.0], [0.0, cx, -sx], [0.0, sx, cx]]) @ about_y


def _merged_paths(svg: str) -> Iterable[Markup]:
    """One element per colour of the lines and per colour of the areas of RDKit's SVG."""
    lines: dict[str, list[str]] = {}
    areas: dict[str, list[str]] = {}
    for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        style = f"{element.get('style', '')};fill:{element.get('fill', 'none')}"
        course = re.sub(r"\s*([A-Z])\s*", r"\1", element.attrib["d"].replace(",", " ").strip())
        for paint, paths in (("stroke", lines), ("fill", areas)):
            if found := re.search(rf"\b{paint}:(#\w{{6}})", style):
                paths.setdefault("currentColor" if found[1] == "#000000" else found[1], []).append(course)
    yield from (tag("path", d="".join(parts), fill="none", stroke=ink) for ink, parts in lines.items())
    yield from (tag("path", d="".join(parts), fill=ink) for ink, parts in areas.items())


def _unit_rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue
