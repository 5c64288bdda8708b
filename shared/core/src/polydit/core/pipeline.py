"""What every domain's generator inherits: diffusers' pipeline, loaded from a local folder and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from diffusers import DiffusionPipeline

from polydit.core.checkpoints.checkpoint import read_index
from polydit.core.errors import CheckpointError
from polydit.core.sampling.cache.named import AUTO, CACHE_KEY, NONE
from polydit.core.sampling.cache.suggested import from_folder, into_folder

if TYPE_CHECKING:
    from polydit.core.sampling.cache import Cache


class Pipeline(DiffusionPipeline):
    """A `DiffusionPipeline` that loads its own component classes from a local folder.

    diffusers imports whatever module the checkpoint's `model_index.json` names. Ours names its classes itself, so a
    checkpoint decides nothing about code, and loading never looks at a network.
    """

    components_by_name: ClassVar[dict[str, Any]]  # a class, or a tuple of those that are allowed

    @property
    def cache(self) -> str:
        """The cache that the checkpoint suggests, as `--cache` takes it; "none" for a pipeline without the argument."""
        return str(self.config.get(CACHE_KEY) or NONE)

    def chosen_cache(self, asked: str | Cache | None, num_steps: int) -> str | Cache | None:
        """The cache of a run; "auto" = the checkpoint's in runs of the checkpoint's own number of steps, else none."""
        if asked != AUTO:
            return asked
        return self.cache if num_steps == self.config.num_steps else NONE

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> Pipeline:
        """Load from a folder that `save_pretrained` wrote.

        Args:
            folder: Checkpoint folder.
            options: For each network's `from_pretrained`, such as `torch_dtype`.

        Raises:
            CheckpointError: If the folder is not a checkpoint of this pipeline, or a file of it is damaged.
        """
        folder = Path(folder)
        index = cls._read_index(folder)
        components = {
            name: cls._load(cls._chosen(kind, index, name, folder), folder, name, options)
            for name, kind in cls.components_by_name.items()
        }
        settings = {
            key: value for key, value in index.items() if not key.startswith("_") and key not in components
        }
        return cls(**components, **settings)

    @staticmethod
    def _chosen(kind: Any, index: dict[str, Any], name: str, folder: Path) -> Any:
        """The class of a part: where several are allowed, the one among them that the index names."""
        if not isinstance(kind, tuple):
            return kind
        named = (index.get(name) or [None, None])[1]
        found = next((one for one in kind if one.__name__ == named), None)
        if found is None:
            expected = " or ".join(one.__name__ for one in kind)
            raise CheckpointError(
                f"the part {name!r} is of class {named}", where=str(folder), expected=expected
            )
        return found

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write a folder that `from_pretrained` reads, with the table of its cache if it has one.

        Args:
            save_directory: The folder.
            options: For diffusers' `save_pretrained`.
        """
        folder, used = Path(save_directory), self.cache
        folder.mkdir(parents=True, exist_ok=True)
        stored = into_folder(used, folder)
        try:
            if stored != used:
                self.register_to_config(cache=stored)
            super().save_pretrained(folder, **options)
        finally:
            if stored != used:
                self.register_to_config(cache=used)

    @classmethod
    def _read_index(cls, folder: Path) -> dict[str, Any]:
        index = read_index(folder, program=cls.__name__)
        if index.get(CACHE_KEY):
            index[CACHE_KEY] = from_folder(str(index[CACHE_KEY]), folder)
        return index

    @staticmethod
    def _load(kind: Any, folder: Path, name: str, options: dict[str, Any]) -> Any:
        part = folder / name
        if not part.is_dir():
            raise CheckpointError(f"the checkpoint lacks its part {name!r}", where=str(folder))
        try:
            if hasattr(kind, "set_timesteps"):
                return kind.from_pretrained(part)
            return kind.from_pretrained(
                part, low_cpu_mem_usage=False, local_files_only=True, **options
            ).eval()
        except Exception as error:  # safetensors, json and diffusers raise many kinds for a damaged part
            raise CheckpointError(f"the part {name!r} cannot be read ({error})", where=str(part)) from error
