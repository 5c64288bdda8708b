"""What a policy was told to do, as numbers: embeddings by instruction. They are looked up, never computed at run time.

Either they are precomputed with a language model and given, or every instruction gets a fixed random vector. Such a
vector is a stand-in that tells tasks apart; it is no language understanding, and an instruction that was not trained
is refused. Shapes: l tokens, e embedding width.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from polydit.core.checkpoints.files import read_header
from polydit.core.checkpoints.safe_pickle import load_pickled
from polydit.core.errors import CheckpointError, InputError
from polydit.core.jobs.seeds import item_generator

NAME = "instructions"
_MAX_BYTES = 4 << 30  # of one file; an embedding of T5-XXL takes at most 16 MiB
_SHOWN = 12


@dataclass(frozen=True, eq=False)
class Instructions:
    """Embeddings by instruction; stored as `instructions.json` and `instructions.safetensors`.

    Args:
        embeddings: One (l, e) tensor per instruction, all of one width.
        kind: "precomputed" by a language model, or "vectors": fixed random ones.

    Raises:
        InputError: If there are none, they differ in width, or one is not finite.
    """

    embeddings: Mapping[str, Tensor]
    kind: str = "precomputed"

    def __post_init__(self) -> None:
        if not self.embeddings:
            raise InputError("there is no instruction", expected="at least one")
        for text, value in self.embeddings.items():
            if value.ndim != 2 or not len(value) or value.shape[1] != self.width:
                problem = f"the embedding of {text!r} has the shape {tuple(value.shape)}"
                raise InputError(problem, expected=f"(tokens, {self.width})")
            if not bool(value.isfinite().all()):
                raise InputError(f"the embedding of {text!r} holds a value that is no finite number")

    @classmethod
    def vectors(cls, texts: Iterable[str], width: int, seed: int = 0) -> Instructions:
        """One token per instruction: a random direction that depends on the text and the seed only.

        Its length is √width, so that its entries are of size 1, as normalised states are.
        """
        return cls({text: _direction(text, width, seed) for text in dict.fromkeys(texts)}, "vectors")

    @classmethod
    def read(cls, path: Path) -> Instructions:
        """Precomputed embeddings.

        Args:
            path: A safetensors file whose names are the instructions; a `.pt` file of RDT, either
                {"instruction", "embeddings"} or a bare tensor, whose instruction is then the file's name; or a folder
                of such files. A leading axis of size 1 is dropped.

        Raises:
            InputError: If there is nothing of that kind.
            CheckpointError: If a file is damaged, too large, or not plain data.
        """
        files = [path] if path.is_file() else sorted([*path.glob("*.pt"), *path.glob("*.safetensors")])
        if not files:
            raise InputError("no embeddings there", where=str(path), expected="*.pt or *.safetensors")
        found: dict[str, Tensor] = {}
        for file in files:
            entries = _read_pickled(file) if file.suffix == ".pt" else _read_safetensors(file)
            found |= {text: _matrix(value, file) for text, value in entries.items()}
        return cls(found)

    @property
    def width(self) -> int:
        """Embedding width e."""
        return next(iter(self.embeddings.values())).shape[1]

    @property
    def texts(self) -> list[str]:
        """All instructions, in the order in which they came."""
        return list(self.embeddings)

    def require(self, texts: Iterable[str], *, where: str | None = None) -> None:
        """Refuse instructions that have no embedding.

        Raises:
            InputError: Names them, and those that have one.
        """
        unknown = [text for text in dict.fromkeys(texts) if text not in self.embeddings]
        if unknown:
            known = ", ".join(map(repr, self.texts[:_SHOWN]))
            more = f" and {len(self.texts) - _SHOWN} more" if len(self.texts) > _SHOWN else ""
            raise InputError(
                f"unknown instruction {', '.join(map(repr, unknown[:_SHOWN]))}",
                where=where,
                expected=f"one of {known}{more}",
            )

    def select(self, texts: Iterable[str]) -> Instructions:
        """Only those, in that order."""
        wanted = list(dict.fromkeys(texts))
        self.require(wanted)
        return Instructions({text: self.embeddings[text] for text in wanted}, self.kind)

    def batch(self, texts: Sequence[str]) -> tuple[Float[Tensor, "b l e"], Bool[Tensor, "b l"]]:
        """Embeddings padded with zeros to the longest, and True for real tokens.

        Raises:
            InputError: As `require`.
        """
        self.require(texts)
        rows = [self.embeddings[text] for text in texts]
        sizes = torch.tensor([len(row) for row in rows])
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return padded, torch.arange(padded.shape[1]) < sizes[:, None]

    def save(self, folder: Path) -> None:
        """Write both files."""
        values = {str(i): value.contiguous() for i, value in enumerate(self.embeddings.values())}
        save_file(values, folder / f"{NAME}.safetensors")
        record = {"kind": self.kind, "instructions": self.texts}
        (folder / f"{NAME}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> Instructions:
        """Read both files.

        Raises:
            CheckpointError: If one is missing or damaged.
        """
        path = folder / f"{NAME}.json"
        try:
            record = json.loads(path.read_text("utf-8"))
            values = _read_safetensors(folder / f"{NAME}.safetensors")
            texts = {text: values[str(i)].float() for i, text in enumerate(record["instructions"])}
            return cls(texts, str(record["kind"]))
        except (OSError, ValueError, LookupError, TypeError, InputError) as error:
            raise CheckpointError(f"the instructions cannot be read ({error})", where=str(path)) from error


def _direction(text: str, width: int, seed: int) -> Float[Tensor, "1 e"]:
    value = torch.randn(1, width, generator=item_generator(seed, text))
    return value / value.norm() * width**0.5


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    for name, entry in read_header(path).items():
        if len(entry["shape"]) not in (2, 3):
            raise CheckpointError(
                f"{name!r} has the shape {entry['shape']}", where=str(path), expected="(tokens, width)"
            )
    _check_bytes(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"cannot be read ({error})", where=str(path)) from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    _check_bytes(path)
    content: Any = load_pickled(path)
    if isinstance(content, Mapping):
        text, value = content.get("instruction"), content.get("embeddings")
        if isinstance(text, str) and isinstance(value, Tensor):
            return {text: value}
    elif isinstance(content, Tensor):
        return {path.stem: content}
    raise CheckpointError(
        "is no embedding of an instruction",
        where=str(path),
        expected="a tensor, or instruction and embeddings",
    )


def _check_bytes(path: Path) -> None:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise CheckpointError(
            f"{size:,} bytes are too many for embeddings", where=str(path), expected=f"{_MAX_BYTES:,}"
        )


def _matrix(value: Tensor, path: Path) -> Float[Tensor, "l e"]:
    if value.ndim == 3 and len(value) == 1:
        value = value[0]
    if value.ndim != 2 or not value.is_floating_point():
        raise CheckpointError(
            f"an embedding is {value.dtype} of shape {tuple(value.shape)}",
            where=str(path),
            expected="floats (tokens, width)",
        )
    return value.float()
