"""Pictures of a MuJoCo scene without a screen: by OSMesa on the processor, or by EGL on whatever there is."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import UInt8

from polydit.core.errors import InputError, PolyditError
from polydit.robopolicy.envs.extras import import_extra

if TYPE_CHECKING:
    from types import ModuleType

    from polydit.core.cli.domains import Finding

_LARGEST: Final = 2048  # pixels of a side


@dataclass(frozen=True, slots=True)
class _Library:
    file: str
    package: str  # of Debian and Ubuntu


_LIBRARIES: Final = {
    "egl": _Library("libEGL.so.1", "libegl1 libgl1-mesa-dri"),
    "osmesa": _Library("libOSMesa.so.8", "libosmesa6"),
}
_ELSEWHERE: Final = {"Darwin": "cgl", "Windows": "glfw"}
_GPUS: Final = ("/dev/nvidia0", "/dev/dri/renderD128")


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderConfig:
    """Which pictures an environment makes.

    Args:
        cameras: Those in every observation, as `observation.images.<camera>`; empty = none, only `render()` makes
            pictures then; None = the environment's usual one.
        height: Of the pictures in observations, in pixels.
        width: Likewise.
        view: Side in pixels of the pictures of `render()`, by the first camera.
        fast: Without shadows, reflections and smoothing: on a processor about ten times as fast.

    Raises:
        InputError: If a camera is named twice, or a size is out of range.
    """

    cameras: tuple[str, ...] | None = None
    height: int = 64
    width: int = 64
    view: int = 256
    fast: bool = True

    def __post_init__(self) -> None:
        cameras = self.cameras or ()
        if twice := {camera for camera in cameras if cameras.count(camera) > 1}:
            raise InputError(f"camera {', '.join(sorted(twice))} is named twice", expected="each camera once")
        for side in (self.height, self.width, self.view):
            if not 1 <= side <= _LARGEST:
                raise InputError(f"a picture of {side} pixels a side", expected=f"1 to {_LARGEST}")


# --- GL -------------------------------------------------------------------------------------------------


def import_mujoco(extra: str) -> ModuleType:
    """MuJoCo, without GL where GL is asked for and missing: only pictures need it.

    Args:
        extra: The extra of this package that installs it.

    Raises:
        MissingExtraError: MuJoCo is not installed.
    """
    wanted = os.environ.get("MUJOCO_GL", "")
    absent = wanted in _LIBRARIES and not _is_here(wanted)
    with _variable("MUJOCO_GL", "disable" if absent else wanted):
        return import_extra("mujoco", extra=extra)


def choose_platform() -> str:
    """How pictures are made here: `MUJOCO_GL` if it is set, else EGL with a GPU, else OSMesa, else EGL.

    Raises:
        PolyditError: Its library is not there; the hint names the package.
    """
    system = platform.system()
    if system != "Linux":
        return _ELSEWHERE.get(system, "glfw")
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if wanted and wanted not in _LIBRARIES:
        problem = f"MUJOCO_GL is {wanted!r}, and that makes no pictures without a screen"
        raise PolyditError(problem, expected=" or ".join(_LIBRARIES))
    order = ("egl", "osmesa") if any(Path(gpu).exists() for gpu in _GPUS) else ("osmesa", "egl")
    for name in (wanted,) if wanted else order:
        if _is_here(name):
            return name
    names = [wanted] if wanted else list(_LIBRARIES)
    raise PolyditError(
        f"pictures need a library for graphics: {' or '.join(_LIBRARIES[name].file for name in names)}",
        hint="Install it with: "
        + ", or: ".join(f"apt-get install {_LIBRARIES[name].package}" for name in reversed(names))
        + ". States need no graphics: leave out the pictures and the videos",
    )


def _is_here(name: str) -> bool:
    try:
        ctypes.CDLL(_LIBRARIES[name].file)
    except OSError:
        return False
    return True


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """The environment variable has another value meanwhile."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _start_gl() -> None:
    """Let MuJoCo make pictures on the chosen platform.

    MuJoCo chooses when it is imported, which a state-only environment may have done already without GL.
    """
    name = choose_platform()
    os.environ["MUJOCO_GL"] = name  # for processes started from here
    if name in _LIBRARIES:
        os.environ["PYOPENGL_PLATFORM"] = name
    try:
        context = import_module(f"mujoco.{name}").GLContext
    except Exception as error:  # whatever PyOpenGL meets in a library of the system
        raise _broken(name, error) from error
    import_module("mujoco.gl_context").GLContext = context  # type: ignore[attr-defined]


def _broken(name: str, error: Exception) -> PolyditError:
    hint = None
    if name in _LIBRARIES:
        others = " or ".join(f"MUJOCO_GL={other}" for other in _LIBRARIES if other != name)
        hint = f"Install what it needs with: apt-get install {_LIBRARIES[name].package}. Or try {others}"
    return PolyditError(f"no picture can be made by {name} ({error})", hint=hint)


# --- cameras --------------------------------------------------------------------------------------------


class MujocoCameras:
    """The cameras of a MuJoCo model.

    Args:
        model: The model; its smoothing is turned off if `fast`.
        data: Its state, watched from here on.
        fast: As in `RenderConfig`.
        upside_down: Cameras that hang the wrong way up; their pictures are turned by 180°.

    Raises:
        PolyditError: Pictures cannot be made here.
    """

    def __init__(
        self, model: Any, data: Any, *, fast: bool = True, upside_down: Collection[str] = ()
    ) -> None:
        _start_gl()
        self._model, self._data, self._fast, self._upside_down = model, data, fast, upside_down
        self._renderers: dict[tuple[int, int], Any] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All cameras of the model."""
        return tuple(self._model.camera(index).name for index in range(self._model.ncam))

    def picture(self, camera: str, height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
        """What a camera sees now, RGB."""
        renderer = self._renderer(height, width)
        renderer.update_scene(self._data, camera=camera)
        pixels = renderer.render()
        return np.ascontiguousarray(pixels[::-1, ::-1]) if camera in self._upside_down else pixels

    def _renderer(self, height: int, width: int) -> Any:
        if (height, width) not in self._renderers:
            try:
                self._renderers[height, width] = self._new_renderer(height, width)
            except Exception as error:  # of many kinds, by platform
                raise _broken(os.environ["MUJOCO_GL"], error) from error
        return self._renderers[height, width]

    def _new_renderer(self, height: int, width: int) -> Any:
        mujoco = import_module("mujoco")
        vis = self._model.vis
        vis.global_.offheight = max(vis.global_.offheight, height)
        vis.global_.offwidth = max(vis.global_.offwidth, width)
        if self._fast:
            vis.quality.offsamples = 0
        renderer = mujoco.Renderer(self._model, height, width)
        if self._fast:
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                renderer.scene.flags[flag] = 0
        return renderer

    def close(self) -> None:
        """Free the contexts; left to the interpreter's exit, EGL's raise there."""
        while self._renderers:
            self._renderers.popitem()[1].close()


_SCENE: Final = '<mujoco><worldbody><camera name="c" pos="0 0 3"/><geom size="1"/></worldbody></mujoco>'


def check_rendering() -> Finding:
    """For `polydit doctor`: a picture of a ball is made. Nothing but pictures needs it."""
    from polydit.core.cli.domains import Finding

    name = "robopolicy pictures"
    try:
        mujoco = import_mujoco("metaworld")
        model = mujoco.MjModel.from_xml_string(_SCENE)
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        with closing(MujocoCameras(model, data)) as cameras:
            seen = len(np.unique(cameras.picture("c", 16, 16)))
        detail = f"by {os.environ['MUJOCO_GL']}"
        return Finding(
            name=name, status="ok" if seen > 1 else "warn", detail=detail if seen > 1 else f"empty, {detail}"
        )
    except PolyditError as error:
        return Finding(name=name, status="warn", detail=error.problem, fix=error.hint or "")
