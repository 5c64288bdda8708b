"""What vstain says about itself: its checkpoints, and the checks of `polydit doctor`."""

from __future__ import annotations

from polydit.core.cli.domains import CheckpointEntry, Domain, Finding

_REINSTALL = 'pip install --force-reinstall ./shared/core "./packages/vstain[wsi]"'

STARTER = CheckpointEntry(
    name="starter",
    location="package://polydit.vstain/starter",
    licence="Apache-2.0",
    parameters=0,
    summary="Cytokeratin (ck) and CD3 (cd3) from H&E, trained on procedural tissue by the recipe in the package.",
    limits="Trained on synthetic tissue alone: for learning and testing, never for diagnosis.",
)


def check_images() -> Finding:
    """The libraries of pictures and metrics are importable."""
    from polydit.core.cli.doctor import check_imports

    return check_imports(
        "vstain images", ("PIL", "scipy.ndimage", "skimage.color", "tifffile"), fix=_REINSTALL
    )


def check_slides() -> Finding:
    """OpenSlide, which vendors' slide files need; the other formats do without."""
    from polydit.core.cli.doctor import check_imports

    return check_imports("vstain slides", ("openslide",), fix=_REINSTALL)


def check_starter() -> Finding:
    """The checkpoint that ships with the package loads and runs: one tile in two steps."""
    name = "vstain starter"
    if not STARTER.is_here():
        return Finding(name=name, status="fail", detail=f"no weights at {STARTER.path}", fix=_REINSTALL)

    from polydit.vstain import StainRequest, load
    from polydit.vstain.data.tissue import render

    pipeline = load(STARTER.name)
    he = render(0, 0, 0, 64, 64, pipeline.stains[0]).he
    pipeline([StainRequest.of("check", he, stain=pipeline.stains[0])], num_steps=2)
    return Finding(name=name, status="ok", detail="loads, and a tile ran two steps")


DOMAIN = Domain(
    name="vstain",
    summary="virtual staining (StainDiffuser)",
    distribution="polydit-vstain",
    command="vstain",
    calibration="polydit.vstain.calibration:sampler",
    checkpoints=(STARTER,),
    checks=(
        "polydit.vstain.domain:check_images",
        "polydit.vstain.domain:check_slides",
        "polydit.vstain.domain:check_starter",
    ),
)
