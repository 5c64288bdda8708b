"""Published ``.pt`` and ``.ckpt`` files without running the code that they name.

A file of ``torch.save`` is a zip of one pickle and the raw bytes of its tensors. A pickle may name any function and
have it called, so this reader decides about every name:

* containers and tensors are made;
* names below a prefix in ``inert`` (live modules, optimizers and configs of the authors' program) become
  :class:`Stub` objects: they keep their arguments and their state as plain data and do nothing;
* every other name refuses the file and is told.

``torch.load(weights_only=True)`` cannot read files with live objects inside; ``torch.load(pickle_module=...)`` can, but
it hands TorchScript archives and files older than torch 1.6 to other readers. Here nothing is imported, and a tensor's
bytes are read only after its declared size was found to be what the zip holds.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from polydit.core.errors import CheckpointError

__all__ = ["Stub", "load_pickled"]

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Without bytes and bytearray: called with a number they take that much memory.
_BUILTINS = {made.__name__: made for made in (dict, set, frozenset, list, tuple, int, float, bool, str)}
# What a damaged pickle raises: the unpickler reads opcodes, looks up memos, calls and indexes.
_DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
)


class Stub:
    """Stands for an object of a class that was not imported: keeps what the pickle says about it, does nothing.

    Attributes:
        name: The class's or function's full name.
        args: Positional arguments of its construction.
        state: What would have become its attributes; for modules a dict with ``_parameters``, ``_modules`` etc.
        items: Elements that would have been appended or set.
    """

    name = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs
        self.state: Any = None
        self.items: list[Any] = []

    def __new__(cls, *args: Any, **kwargs: Any) -> Stub:
        stub = super().__new__(cls)
        Stub.__init__(stub, *args, **kwargs)  # the pickle opcode NEWOBJ calls __new__ only
        return stub

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        """What the pickle of a list subclass calls."""
        self.items.append(value)

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute that the live object would have had, if its state is a dict; modules are looked up too."""
        state = self.state if isinstance(self.state, dict) else {}
        modules = state.get("_modules")
        return state.get(name, modules.get(name, default) if isinstance(modules, dict) else default)

    def __repr__(self) -> str:
        return f"<stub of {self.name}>"


class _Storage(NamedTuple):
    """The bytes of one or several tensors, and how they are to be read."""

    bytes: torch.UntypedStorage
    dtype: torch.dtype


class _RefusedNameError(Exception):
    """A name that is neither made nor stubbed."""


def load_pickled(path: Path, *, inert: Sequence[str] = ()) -> Any:
    """Reads a zip checkpoint of ``torch.save`` (torch 1.6 or newer) on the CPU.

    Args:
        path: The file.
        inert: Prefixes of names, like ``"omegaconf."``, that become :class:`Stub` objects.

    Returns:
        What was saved, with plain tensors in the place of parameters.

    Raises:
        CheckpointError: The file is missing, truncated, damaged, of another kind, or names something that is neither
            plain data nor below a prefix in ``inert``.
    """
    path = Path(path)
    with _open(path) as archive:
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            _refuse(path, "this zip file is not a checkpoint of torch.save")
        folder = pickles[0].removesuffix("data.pkl")
        if folder + "constants.pkl" in archive.namelist():
            _refuse(
                path, "this is a TorchScript program, not a checkpoint", expected="a dictionary of tensors"
            )
        try:
            if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                raise ValueError("it is compressed, which torch.save never does")
            if folder + "byteorder" in archive.namelist() and archive.read(folder + "byteorder") != b"little":
                raise ValueError("it was written on a big-endian machine")
            with archive.open(pickles[0]) as file:
                return _Unpickler(file, archive, folder, tuple(inert)).load()
        except _RefusedNameError as refused:
            _refuse(
                path,
                f"the file names {refused}, which is not plain data",
                expected="tensors and containers only",
                hint="Nothing was run. Do not load this file with other tools unless you trust its author",
            )
        except zipfile.BadZipFile as error:
            _refuse(path, f"the file is damaged ({error})", hint="Get it again")
        except _DAMAGED as error:
            _refuse(path, f"the file is damaged or not a checkpoint ({error})", hint="Get it again")


def _open(path: Path) -> zipfile.ZipFile:
    """Opens the zip, or says what the file is instead."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        _refuse(path, "no such file")
    except OSError as error:
        _refuse(path, f"cannot be read ({error.strerror or error})")
    except zipfile.BadZipFile:
        if head.startswith(b"PK\x03\x04"):
            _refuse(path, "the file is truncated", hint="Get it again and compare its size")
        if head.startswith(b"version https://git-lfs"):
            _refuse(path, "this is a Git LFS pointer, not the file itself", hint="Run: git lfs pull")
        _refuse(
            path, "not a checkpoint of torch.save", expected="a zip file as written by torch 1.6 or newer"
        )


def _refuse(path: Path, problem: str, *, expected: str | None = None, hint: str | None = None) -> NoReturn:
    raise CheckpointError(problem, where=str(path), expected=expected, hint=hint) from None


class _Unpickler(pickle.Unpickler):
    """Makes plain data, stubs and tensors; refuses everything else."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str, inert: tuple[str, ...]) -> None:
        super().__init__(file)
        self.archive, self.folder, self.inert = archive, folder, inert
        self.storages: dict[str, _Storage] = {}
        self.stubs: dict[str, type[Stub]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Gives the meaning of a name; the only door between the pickle and Python."""
        # torch.save writes Python 2's names: __builtin__.long for int, commands.Popen for subprocess.Popen
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        full = f"{module}.{name}"
        if full in _MADE:
            return _MADE[full]
        if full.startswith(self.inert):
            return self.stubs.setdefault(full, type("Stub", (Stub,), {"name": full}))
        raise _RefusedNameError(full)

    def persistent_load(self, pid: Any) -> _Storage:
        """Reads the bytes of one storage after checking its declared size: (kind, dtype, key, device, elements)."""
        kind, dtype, key, _device, elements = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise ValueError(f"unknown reference {pid!r}")
        if key in self.storages:
            return self.storages[key]
        record = self.archive.getinfo(f"{self.folder}data/{key}")
        size = elements * dtype.itemsize
        if record.file_size != size:
            raise ValueError(f"storage {key} declares {size} bytes, the file holds {record.file_size}")
        content = bytearray(self.archive.read(record))
        flat = torch.frombuffer(content, dtype=torch.uint8) if size else torch.empty(0, dtype=torch.uint8)
        return self.storages.setdefault(key, _Storage(flat.untyped_storage(), dtype))


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    """Makes the view of a storage that the pickle describes, after checking that it lies inside."""
    if len(shape) != len(stride) or min((offset, *shape, *stride)) < 0:
        raise ValueError(f"a tensor has the shape {shape} with the stride {stride} at {offset}")
    elements = storage.bytes.nbytes() // storage.dtype.itemsize
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    wanted = math.prod(list(shape))
    if wanted > elements or (wanted and last >= elements):
        raise ValueError(f"a tensor of the shape {shape} is larger than its storage of {elements} elements")
    return torch.empty(0, dtype=storage.dtype).set_(storage.bytes, offset, shape, stride)


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    """A parameter is only a tensor here."""
    return data


_MADE: dict[str, Callable[..., Any] | torch.dtype] = {
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": defaultdict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    **{f"torch.{name}": dtype for name, dtype in _DTYPES.items()},
    **{f"builtins.{name}": made for name, made in _BUILTINS.items()},
}
