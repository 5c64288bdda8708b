"""What robopolicy says about itself: its checkpoints, and the checks of `polydit doctor`."""

from __future__ import annotations

from polydit.core.cli.domains import CheckpointEntry, Domain, Finding

_INSTALL = 'pip install ./shared/core "./packages/robopolicy{}"'
_SIMULATORS = {
    "metaworld": "metaworld",
    "gymnasium-robotics": "fetch",
    "gym-pusht": "pusht",
}  # package: extra

STARTER = CheckpointEntry(
    name="starter",
    location="package://polydit.robopolicy/starter",
    licence="Apache-2.0",
    parameters=0,
    summary="One state policy for many MetaWorld tasks, trained by the recipe in the package.",
    limits="For learning and testing in simulation; not for a real robot.",
)


def check_formats() -> Finding:
    """The libraries that read and write data sets are importable."""
    from polydit.core.cli.doctor import check_imports

    modules = ("pyarrow.parquet", "av", "h5py", "gymnasium")
    return check_imports("robopolicy formats", modules, fix=_INSTALL.format(""))


def check_simulators() -> Finding:
    """The simulator that has experts is installed; which others are."""
    from importlib.metadata import PackageNotFoundError, version

    found, missing = [], []
    for package in _SIMULATORS:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    name = "robopolicy simulators"
    detail = ", ".join(found) or "none is installed"
    if "metaworld" in missing:
        return Finding(name=name, status="warn", detail=detail, fix=_INSTALL.format("[metaworld]"))
    absent = ", ".join(f"{package} [{_SIMULATORS[package]}]" for package in missing)
    return Finding(name=name, status="ok", detail=f"{detail}; not installed: {absent}" if missing else detail)


def check_starter() -> Finding:
    """The checkpoint that ships with the package loads and plans from an observation of zeros."""
    name = "robopolicy starter"
    if not STARTER.is_here():
        problem = f"no weights at {STARTER.path}"
        return Finding(name=name, status="fail", detail=problem, fix=_INSTALL.format(""))
    import numpy as np

    from polydit.robopolicy import load
    from polydit.robopolicy.episode import STATE, TASK

    policy = load(STARTER.name)
    state = np.zeros(policy.normalizer.state.size, np.float32)
    chunk = policy.predict_action_chunk({STATE: state, TASK: policy.instructions.texts[0]})
    return Finding(name=name, status="ok", detail=f"loads, and planned {len(chunk)} actions")


DOMAIN = Domain(
    name="robopolicy",
    summary="Robot policies (RDT, MoDE, PAD)",
    distribution="polydit-robopolicy",
    command="robopolicy",
    checkpoints=(STARTER,),
    checks=(
        "polydit.robopolicy.domain:check_formats",
        "polydit.robopolicy.domain:check_simulators",
        "polydit.robopolicy.envs.rendering:check_rendering",
        "polydit.robopolicy.domain:check_starter",
    ),
    calibration="polydit.robopolicy.calibration:sampler",
)
