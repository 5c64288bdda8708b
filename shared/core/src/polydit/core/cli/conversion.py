"""What the commands `convert` share: a published file in, a checkpoint folder with its card out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from polydit.core.cli.options import Decorated, out_option, output_options, overwrite_option, stacked
from polydit.core.cli.output import Output

_CARD = """---
{fields}
licence: as stated where {name} was published
---
# Converted from {name}

{about}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """The options that every such call has."""

    source: Path
    out: Path
    overwrite: bool
    output: Output

    def finish(
        self,
        save: Callable[[Path], object],
        *,
        about: str,
        facts: Mapping[str, Any],
        lines: Sequence[str],
        weights: str = "",
    ) -> None:
        """Writes the folder, whole or not at all, and ends the command.

        Args:
            save: Fills the folder that it is given.
            about: Text of the card.
            facts: What is known of the checkpoint, for a program.
            lines: The same for a person.
            weights: Which of the weights in the file, where it has several.
        """
        from polydit.core.checkpoints.files import sha256_of
        from polydit.core.checkpoints.folder import CARD, checkpoint_folder

        name, digest = self.source.absolute().name, sha256_of(self.source)  # absolute, for the name of "."
        chosen = {"weights": weights} if weights else {}
        fields = {"source": name, "source_sha256": digest, **chosen}
        head = "\n".join(f"{key}: {value}" for key, value in fields.items())
        with checkpoint_folder(self.out, overwrite=self.overwrite) as folder:
            save(folder)
            (folder / CARD).write_text(_CARD.format(fields=head, name=name, about=about), encoding="utf-8")
        record = {"out": str(self.out), "source": str(self.source), "sha256": digest, **chosen, **facts}
        self.output.summary(record, *lines, f"checkpoint: {self.out}")


def conversion_options(function: Decorated) -> Decorated:
    """What every command `convert` takes besides its own options; the command gets it as `call`.

    A place that is taken is refused before the command begins.
    """

    @wraps(function)
    def called(*, source: Path, out: Path, overwrite: bool, output: Output, **values: Any) -> Any:
        from polydit.core.checkpoints.folder import check_free

        check_free(out, overwrite=overwrite)
        call = Conversion(source=source, out=out, overwrite=overwrite, output=output)
        return function(call=call, **values)

    return stacked(
        called,
        click.argument("source", type=click.Path(path_type=Path)),
        out_option(help="Checkpoint folder to make.", metavar="DIR"),
        overwrite_option(help="Replace a checkpoint that is there."),
        output_options,
    )
