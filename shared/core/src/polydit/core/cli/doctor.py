"""`polydit doctor`: one line per check, and for what does not work the command that fixes it."""

from __future__ import annotations

import os
import pkgutil
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal

import click

from polydit.core.cli.domains import Finding, installed_domains
from polydit.core.cli.options import output_options
from polydit.core.cli.output import Output
from polydit.core.errors import PolyditError

_GIB = 2**30
_PREFIX = "polydit-"  # our distributions
_ENOUGH_DISK, _TOO_LITTLE_DISK = 2 * _GIB, _GIB // 8


@click.command()
@output_options
@click.pass_context
def doctor(ctx: click.Context, output: Output) -> None:
    """Check what works here; each line is ok, warn or fail, with the command that fixes it.

    Exit code 1 when a line says fail.
    """
    counts = {"ok": 0, "warn": 0, "fail": 0}
    for finding in findings():
        counts[finding.status] += 1
        output.item(finding.record())
        output.text(f"{finding.status:<5}{finding.name}: {finding.detail}")
        if finding.fix:
            output.text(f"     fix: {finding.fix}")
    failed = counts["fail"] > 0
    output.summary(
        {"status": "fail" if failed else "ok", **counts}, "Something fails." if failed else "All works."
    )
    ctx.exit(1 if failed else 0)


def findings() -> Iterator[Finding]:
    """The findings of the core's checks, then of each installed domain's."""
    for check in (check_python, *_package_checks(), check_torch, check_device, check_disk, check_cache):
        yield _guarded(check, check.__name__.removeprefix("check_"))
    for domain in installed_domains():
        for reference in domain.checks:
            name = f"{domain.name} {reference.rpartition(':')[2].removeprefix('check_').replace('_', ' ')}"
            yield _guarded(pkgutil.resolve_name(reference), name)


def _guarded(check: Callable[[], Finding], name: str) -> Finding:
    """A check that raises has found something: its failure is the finding."""
    try:
        return check()
    except PolyditError as error:
        return Finding(name=name, status="fail", detail=str(error), fix=error.hint or "")
    except Exception as error:
        first_line = f"{type(error).__name__}: {error}".splitlines()[0]
        return Finding(name=name, status="fail", detail=first_line)


def check_python() -> Finding:
    return Finding(name="python", status="ok", detail=f"{platform.python_version()} at {sys.prefix}")


def _package_checks() -> list[Callable[[], Finding]]:
    """One check per installed distribution of ours."""
    names = sorted({dist.name for dist in metadata.distributions() if dist.name.startswith(_PREFIX)})

    def check_of(name: str) -> Callable[[], Finding]:
        def check() -> Finding:
            return check_distribution(name)

        check.__name__ = name
        return check

    return [check_of(name) for name in names]


def check_distribution(name: str) -> Finding:
    """Every requirement of the distribution is installed in a version that fits, siblings included."""
    from packaging.requirements import Requirement

    wrong = []
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append((requirement, "missing"))
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append((requirement, installed))
    version = metadata.version(name)
    if not wrong:
        return Finding(name=name, status="ok", detail=version)
    detail = ", ".join(f"{requirement} is needed, {found} is there" for requirement, found in wrong)
    ours = any(requirement.name.startswith(_PREFIX) for requirement, _ in wrong)
    needed = " ".join(f'"{requirement}"' for requirement, _ in wrong)
    fix = (
        "pip install ./shared/core ./packages/NAME  (all from one checkout)"
        if ours
        else f"pip install {needed}"
    )
    return Finding(name=name, status="fail", detail=f"{version}; {detail}", fix=fix)


def check_imports(name: str, modules: Sequence[str], *, fix: str) -> Finding:
    """Each of the modules can be imported; for a domain's own check.

    Args:
        name: Name of the finding.
        modules: Full names.
        fix: The command that installs them.
    """
    import importlib

    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            return Finding(name=name, status="fail", detail=f"{module}: {error}", fix=fix)
    return Finding(name=name, status="ok", detail=", ".join(modules))


def check_torch() -> Finding:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    return Finding(
        name="torch",
        status="ok",
        detail=f"{torch.__version__} ({build} build), {torch.get_num_threads()} threads",
    )


def check_device() -> Finding:
    """The device that ``--device auto`` takes, and whether it multiplies bfloat16 in hardware."""
    import torch

    from polydit.core.jobs.device import choose_device

    device = choose_device("auto")
    if torch.version.cuda and device.type == "cpu":
        fix = "nvidia-smi  (the driver must be there and fit this torch)"
        problem = "torch is built for CUDA, but no GPU answers; the CPU is used"
        return Finding(name="device", status="warn", detail=problem, fix=fix)
    has_bf16 = {"cpu": cpu_has_amx, "cuda": torch.cuda.is_bf16_supported}.get(device.type, lambda: False)()
    bf16 = "bf16 in hardware" if has_bf16 else "no bf16 in hardware: use fp32"
    free = "" if device.free_bytes is None else f", {device.free_bytes / _GIB:.1f} GiB free"
    detail = f"{device.name} ({device.description}, {os.cpu_count()} cores){free}, {bf16}"
    return Finding(name="device", status="ok", detail=detail)


def cpu_has_amx() -> bool:
    """Whether the processor has Intel's matrix unit; only Linux tells, elsewhere False."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def check_disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    detail = f"{free / _GIB:.1f} GiB free in {Path.cwd()}"
    if free >= _ENOUGH_DISK:
        return Finding(name="disk", status="ok", detail=detail)
    status: Literal["fail", "warn"] = "fail" if free < _TOO_LITTLE_DISK else "warn"
    return Finding(
        name="disk", status=status, detail=detail, fix=f"du -sh {Path.cwd()}/* | sort -h  (then free some)"
    )


def check_cache() -> Finding:
    """Downloaded weights need a writable folder."""
    from huggingface_hub.constants import HF_HOME, HF_HUB_OFFLINE

    mode = "offline mode" if HF_HUB_OFFLINE else "downloads allowed"
    try:
        Path(HF_HOME).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=HF_HOME):
            return Finding(name="cache", status="ok", detail=f"{HF_HOME} is writable, {mode}")
    except OSError as error:
        fix = f"export HF_HOME={Path.cwd() / '.cache'}"
        return Finding(name="cache", status="warn", detail=f"{HF_HOME}: {error.strerror}, {mode}", fix=fix)
