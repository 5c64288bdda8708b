"""One episode on the page: its actions as a plot, its video as a card."""

from __future__ import annotations

import base64
import csv
from pathlib import Path

from polydit.core.errors import InputError
from polydit.core.jobs import ManifestRecord
from polydit.core.report import Badge, Card, Plot, line_plot
from polydit.core.report.markup import Markup, tag

_ACTION = "action."


def action_plot(record: ManifestRecord, trace: Path) -> Plot:
    """The numbers of an episode's actions over its steps.

    Args:
        record: Its line in the manifest.
        trace: What `Rollout.trace` made.
    """
    with trace.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    names = [name for name in rows[0] if name.startswith(_ACTION)]
    lines = {name.removeprefix(_ACTION): [float(row[name]) for row in rows] for name in names}
    steps = [int(row["step"]) for row in rows]
    end = "success" if record["measures"]["success"] else "no success"
    title = f"{record['measures']['task']}, seed {record['seed']}: {end}"
    return Plot(picture=line_plot(steps, lines, x_label="step", y_label="action", title=title))


def video_card(record: ManifestRecord, video: Path) -> Card:
    """An episode's video: some of its frames, and a link to all of them.

    Args:
        record: Its line in the manifest.
        video: Its mp4.
    """
    measures = record["measures"]
    facts = [
        ("seed", str(record["seed"])),
        ("steps", measures["steps"]),
        ("reward", f"{measures['reward']:.1f}"),
    ]
    paths = (output["path"] for output in record["outputs"])
    return Card(
        title=measures["task"],
        pictures=[_frames(video, f"Frames of {record['id']}")],
        badges=[Badge("success", "good") if measures["success"] else Badge("no success", "bad")],
        facts=facts,
        links=[(Path(path).suffix.lstrip(".").upper(), path) for path in paths],
    )


def _frames(video: Path, label: str) -> Markup:
    from polydit.robopolicy.evaluate.videos import filmstrip

    try:
        picture = base64.b64encode(filmstrip(video)).decode()
    except InputError as error:
        return tag("p", error.problem)
    return tag("img", src=f"data:image/jpeg;base64,{picture}", alt=label)
