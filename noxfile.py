"""Every developer command. Sessions run in the interpreter that runs nox, so one .venv serves them all.

python3 -m venv .venv && .venv/bin/pip install nox
.venv/bin/nox -s quickstart
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).parent
CORE = "shared/core"
DOMAINS = sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("packages/*/pyproject.toml"))
APPS = sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("apps/*/pyproject.toml"))
SOME_FAILED = 3  # exit code of a tool: finished, and what failed is recorded
MADE = {  # what a run folder holds for a person
    "3D molecules (SDF)": "molecules.sdf",
    "crystals (CIF)": "crystals.cif",
    "figures": "figures.json",
    "report page": "report.html",
}
EXTRAS = {  # what a project needs besides to be tested, and a domain to train its starter
    "bench": "cache-dit",
    "robopolicy": "metaworld,fetch,pusht,serve,siglip",
    "vstain": "wsi",
}
SMOKE = {  # what proves that a domain works alone: its own commands, run in an empty folder
    "molgen": (
        "molgen --help",
        "molgen info",
        "molgen sample --num-samples 2 --num-steps 4 --out molecules",
        "molgen sample --kind crystal --num-samples 2 --num-steps 4 --out crystals",
    ),
    "pointgen": (
        "pointgen --help",
        "pointgen info",
        "pointgen sample --num-samples 4 --num-steps 4 --out clouds",
        "pointgen data make --num 4 --out shapes",
    ),
    "robopolicy": (
        "robopolicy --help",
        "robopolicy info",
        "robopolicy data make --env metaworld --task reach-v3 --episodes 2 --out demos",
        "robopolicy evaluate --env metaworld --task reach-v3 --episodes 2 --out run",
    ),
    "vstain": (
        "vstain --help",
        "vstain info",
        "vstain data make --num 10 --out ds",
        "vstain run ds/test/HE --stain ck --num-steps 2 --out run",
    ),
}
# the whole suite: a process per processor, each with files of its own, so that what a file prepares is made once
SIDE_BY_SIDE = ("-n", "logical", "--maxprocesses", "8", "--dist", "loadfile")


@nox.session
def quickstart(session: nox.Session) -> None:
    """Install the core and molgen, make molecules and crystals with the starter, and say where they are."""
    install(session, CORE, "packages/molgen")
    for kind, count in (("molecule", "12"), ("crystal", "6")):
        out = f"quickstart/{kind}s"
        line = ("molgen", "sample", "--kind", kind, "--num-samples", count, "--out", out)
        run(session, *line, success_codes=(0, SOME_FAILED))
    session.log("Made with the starter:")
    for title, name in MADE.items():
        for path in sorted(ROOT.glob(f"quickstart/*/{name}")):
            session.log(f"  {title:<22}{path.relative_to(ROOT)}")


@nox.session
def tests(session: nox.Session) -> None:
    """Install everything and run the tests; arguments go to pytest: nox -s tests -- tests/core -k flow."""
    install(session, CORE, *DOMAINS, *APPS, groups=("tests", "lint"))
    run(session, "python", "-m", "pytest", *(session.posargs or SIDE_BY_SIDE))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting; nox -s lint -- --fix repairs what can be repaired."""
    install(session, groups=("lint",))
    fix = "--fix" in session.posargs
    run(session, "python", "-m", "ruff", "check", *(["--fix"] if fix else []), ".")
    run(session, "python", "-m", "ruff", "format", *([] if fix else ["--check"]), ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of every package."""
    install(session, CORE, *DOMAINS, *APPS, groups=("types",))
    run(session, "python", "-m", "mypy", *(f"-p{name}" for name in packages()), *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed, memory and quality beside a plain transcription; arguments go to the bench."""
    install(session, CORE, *DOMAINS, *APPS)
    run(session, "polydit-bench", *session.posargs)


@nox.session
def starter(session: nox.Session) -> None:
    """Train the starter of a domain by its recipe: nox -s starter -- molgen."""
    name = one_domain(session)
    install(session, CORE, f"packages/{name}")
    run(session, "python", "-m", f"polydit.{name}.starter.recipe", *session.posargs[1:])


@nox.session
def isolated(session: nox.Session) -> None:
    """Prove that a domain (default: each) works alone: wheels of it and the core in a clean environment."""
    for name in session.posargs or [Path(domain).name for domain in DOMAINS]:
        with tempfile.TemporaryDirectory(prefix="polydit-isolated-") as folder:
            prove_isolated(session, name, Path(folder))


# ---------------------------------------------------------------------------------------------------------


def install(session: nox.Session, *projects: str, groups: tuple[str, ...] = ()) -> None:
    """Editable installs plus dependency groups, at the versions of constraints.txt.

    A stamp in the environment skips pip while neither the metadata nor this file has changed.
    """
    editable = [argument for project in projects for argument in ("-e", f"./{project}{extras(project)}")]
    tools = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), *groups)
    wanted = [*editable, *tools]
    stamp = Path(sys.prefix) / "polydit-stamps" / session.name
    key = fingerprint(wanted)
    if stamp.exists() and stamp.read_text() == key:
        return
    run(session, "python", "-m", "pip", "install", "-q", "-c", "constraints.txt", *wanted)
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(key)


def extras(project: str) -> str:
    """``[a,b]`` behind what pip is to install, or nothing."""
    names = EXTRAS.get(Path(project).name)
    return f"[{names}]" if names else ""


def fingerprint(wanted: list[str]) -> str:
    """sha256 of everything that decides what pip would install."""
    metadata = [ROOT / project / "pyproject.toml" for project in (".", CORE, *DOMAINS, *APPS)]
    digest = hashlib.sha256("\0".join([str(ROOT), *wanted]).encode())
    for file in (ROOT / "noxfile.py", ROOT / "constraints.txt", *metadata):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def run(session: nox.Session, program: str, *arguments: str, success_codes: tuple[int, ...] = (0,)) -> None:
    """A program of the interpreter that runs nox, from the root of the checkout."""
    path = sys.executable if program == "python" else str(Path(sys.executable).parent / program)
    session.run(path, *arguments, external=True, success_codes=success_codes)


def packages() -> list[str]:
    """The import names of typed packages: polydit.core, polydit.molgen, ..."""
    sources = [
        path for project in (CORE, *DOMAINS, *APPS) for path in (ROOT / project).glob("src/polydit/*/")
    ]
    return [f"polydit.{path.name}" for path in sources if (path / "py.typed").exists()]


def one_domain(session: nox.Session) -> str:
    names = [Path(domain).name for domain in DOMAINS]
    if not session.posargs or session.posargs[0] not in names:
        session.error(f"name a domain: nox -s {session.name} -- {' | '.join(names)}")
    return session.posargs[0]


def prove_isolated(session: nox.Session, name: str, folder: Path) -> None:
    """Wheels, a clean environment, nothing but the core and this domain importable, its commands run."""
    wheels, environment, work = folder / "wheels", folder / "venv", folder / "work"
    work.mkdir()
    run(
        session,
        "python",
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(wheels),
        CORE,
        f"packages/{name}",
    )
    run(session, "python", "-m", "venv", str(environment))
    bin_folder = environment / ("Scripts" if sys.platform == "win32" else "bin")
    python = str(bin_folder / "python")
    ours = f"polydit_{name}-"
    files = [
        f"{path}{extras(name) if path.name.startswith(ours) else ''}" for path in sorted(wheels.glob("*.whl"))
    ]
    session.run(python, "-m", "pip", "install", "-q", "-c", "constraints.txt", *files, external=True)
    code = "import pkgutil, polydit; print(*sorted(m.name for m in pkgutil.iter_modules(polydit.__path__)))"
    found = subprocess.run(
        [python, "-c", code], cwd=work, capture_output=True, text=True, check=True
    ).stdout.split()
    if found != sorted(["core", name]):
        session.error(f"expected polydit.core and polydit.{name} only, found {found}")
    for command in SMOKE[name]:
        program, *arguments = command.split()
        with session.chdir(work):
            session.run(str(bin_folder / program), *arguments, external=True)
    session.log(f"{name} works alone: {', '.join(path.name for path in sorted(wheels.glob('*.whl')))}")
