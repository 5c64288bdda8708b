"""What molgen says about itself: its checkpoints, and the checks of `polydit doctor`."""

from __future__ import annotations

from polydit.core.cli.domains import CheckpointEntry, Domain, Finding

_REINSTALL = "pip install --force-reinstall ./shared/core ./packages/molgen"

STARTER = CheckpointEntry(
    name="starter",
    location="package://polydit.molgen/starter",
    licence="Apache-2.0",
    parameters=0,
    summary="Small organic molecules and prototype crystals, trained by the recipe in the package.",
    limits="For learning and testing; not for decisions about synthesis, safety or materials.",
)


def check_chemistry() -> Finding:
    """The chemistry libraries are importable."""
    from polydit.core.cli.doctor import check_imports

    modules = ("rdkit", "ase", "pymatgen.core", "spglib", "smact")
    return check_imports("molgen chemistry", modules, fix=_REINSTALL)


def check_starter() -> Finding:
    """The checkpoint that ships with the package loads and runs: a molecule and a crystal in two steps."""
    name = "molgen starter"
    if not STARTER.is_here():
        return Finding(name=name, status="fail", detail=f"no weights at {STARTER.path}", fix=_REINSTALL)

    from polydit.molgen import SampleRequest, load

    pipeline = load(STARTER.name)
    requests = [
        SampleRequest(id="molecule", kind="molecule", num_atoms=6, seed=0),
        SampleRequest(id="crystal", kind="crystal", num_atoms=4, seed=1),
    ]
    pipeline(requests, num_steps=2)
    return Finding(name=name, status="ok", detail="loads, and a molecule and a crystal ran two steps")


DOMAIN = Domain(
    name="molgen",
    summary="Molecules and crystals (ADiT, GFMDiff)",
    distribution="polydit-molgen",
    command="molgen",
    checkpoints=(STARTER,),
    checks=("polydit.molgen.domain:check_chemistry", "polydit.molgen.domain:check_starter"),
    calibration="polydit.molgen.calibration:sampler",
)
