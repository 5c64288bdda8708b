"""What pointgen says about itself: its checkpoints, and the checks of `polydit doctor`."""

from __future__ import annotations

from polydit.core.cli.domains import CheckpointEntry, Domain, Finding

_REINSTALL = "pip install --force-reinstall ./shared/core ./packages/pointgen"

STARTER = CheckpointEntry(
    name="starter",
    location="package://polydit.pointgen/starter",
    licence="Apache-2.0",
    parameters=0,
    summary="Airplanes, cars, chairs and tables, trained on parametric shapes by the recipe in the package.",
    limits="For learning and testing; its shapes are simple, and nothing about them is to scale.",
)


def check_geometry() -> Finding:
    """The libraries of formats and metrics are importable."""
    from polydit.core.cli.doctor import check_imports

    return check_imports("pointgen geometry", ("scipy.spatial", "trimesh"), fix=_REINSTALL)


def check_starter() -> Finding:
    """The checkpoint that ships with the package loads and runs: one cloud in two steps."""
    name = "pointgen starter"
    if not STARTER.is_here():
        return Finding(name=name, status="fail", detail=f"no weights at {STARTER.path}", fix=_REINSTALL)

    from polydit.pointgen import ShapeRequest, load

    pipeline = load(STARTER.name)
    category = str(pipeline.config.categories[0])
    pipeline([ShapeRequest(id="check", category=category, num_points=256, seed=0)], num_steps=2)
    return Finding(name=name, status="ok", detail="loads, and a cloud ran two steps")


DOMAIN = Domain(
    name="pointgen",
    summary="3D point clouds (DiT-3D)",
    distribution="polydit-pointgen",
    command="pointgen",
    checkpoints=(STARTER,),
    checks=("polydit.pointgen.domain:check_geometry", "polydit.pointgen.domain:check_starter"),
    calibration="polydit.pointgen.calibration:sampler",
)
