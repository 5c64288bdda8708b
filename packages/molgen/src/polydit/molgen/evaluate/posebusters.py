"""PoseBusters' checks of a molecule's own geometry (Buttenschoen et al. 2024), an optional extra."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rdkit import Chem

from polydit.core.errors import MissingExtraError

if TYPE_CHECKING:
    from posebusters import PoseBusters


def posebusters_checks(mol: Chem.Mol, *, internal_energy: bool = False) -> dict[str, bool]:
    """Each check of PoseBusters' configuration "mol" and whether the molecule passes.

    Args:
        mol: Sanitised, with one conformer.
        internal_energy: Also compare the energy with that of 50 generated conformers. It takes over a second
            per molecule; all other checks together take some 20 ms.

    Raises:
        MissingExtraError: PoseBusters is not installed.
    """
    table = _buster("mol" if internal_energy else "mol_fast").bust(mol)
    return {str(name): bool(passed) for name, passed in table.iloc[0].items()}


@lru_cache
def _buster(config: str) -> PoseBusters:
    try:
        from posebusters import PoseBusters
    except ImportError as error:
        extra = "polydit-molgen[posebusters]"
        raise MissingExtraError("posebusters", extra, purpose="--posebusters") from error
    return PoseBusters(config=config)


def require_posebusters() -> None:
    """Finds out before any work whether PoseBusters is there.

    Raises:
        MissingExtraError: It is not installed.
    """
    _buster("mol_fast")
