"""The pictures of docs/architecture.md, from the code's own imports and files: `make pictures`.

An arrow between two rooms is there because a file of the one imports from the other. An import that would run upwards,
and a file that is named and does not exist, end the command with an error, so that no picture can be drawn of another
house.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from tests.layout import MODULES, PACKAGES, REPOSITORY, imports, within

# Where each room is drawn: (column, row), the row counted from the top. A package stands for the files directly in it.
ROOMS: Mapping[str, tuple[float, int]] = {
    "service": (1, 0),
    "service.wire": (0, 2),
    "service.http": (1, 2),
    "service.bench": (2, 1),
    "service.predict": (2, 2),
    "service.client": (0, 1),
    "service.lifecycle": (1, 3),
    "service.batching": (0.5, 4),
    "service.images": (1.5, 4),
    "service.process": (1, 5),
    "service.settings": (1, 6),
    "model": (4.6, 1),
    "model.training": (3.6, 2),
    "model.quantization": (5.6, 2),
    "model.evaluation": (3.1, 3),
    "model.exporting": (5.1, 3),
    "model.data": (3.1, 4),
    "model.loss": (4.1, 4),
    "model.hub": (5.1, 4),
    "model.templates": (5.1, 5),
    "model.checkpoint": (5.1, 6),
    "model.network": (4.1, 7),
    "model.categories": (5.1, 7),
    "model.runtime.answers": (2.3, 8),
    "model.runtime.engines": (2.9, 9),
    "model.runtime.artifact": (2.3, 10),
    "model.runtime": (2.9, 11),
}
# What everything in `service` rests on shares a room, though it lies on the top floor.
GROUND = dict.fromkeys(("service.setting_types", "service.schemas", "service.errors"), "service.settings")
NAMES = {
    "service.settings": "settings, schemas, errors",
    "model": "commands of model/",
    "service": "cli, server, app, in_process",
}
FLOORS = {"service": "#dbe9f6", "model": "#e4f1de", "model.runtime": "#fdecd2"}


A_ROW = 4  # steps of a way that stand side by side


class Step(NamedTuple):
    """One step of a way: what happens, and the files in which it does."""

    title: str
    text: str
    files: tuple[str, ...]


UPLOAD = (
    Step("connection", "deadlines, bounds,\nHTTP/1.1", ("service/wire/",)),
    Step(
        "request", "keys, sizes, one place\nfor its answer", ("service/http/gate.py", "service/lifecycle/admission.py")
    ),
    Step("decode", "RGB, upright,\nwithin limits", ("service/images/prepare.py", "model/runtime/decode.py")),
    Step("preprocess", "resized uint8", ("model/runtime/preprocess.py",)),
    Step("queue", "who goes together,\nand when", ("service/batching/batcher.py", "service/batching/former.py")),
    Step("infer", "one canvas,\none run", ("service/batching/engine_runner.py", "model/runtime/engines/")),
    Step("postprocess", "boxes or segments in\nthe upload's pixels", ("model/runtime/answers/",)),
    Step("encode", "JSON or PNG", ("service/images/answers.py", "service/schemas.py")),
)
WEIGHTS = (
    Step("checkpoint", "published, Hugging Face's\nor trained here", ("model/checkpoint/", "model/training/")),
    Step("network", "built and filled,\nstrictly", ("model/network/",)),
    Step("graph", "batch norms folded,\ndynamic sizes", ("model/exporting/to_onnx.py",)),
    Step("proof", "torch and engine on\nthe same batches", ("model/exporting/parity_proof.py",)),
    Step("artifact", "one .onnx: metadata,\ngolden sample, digest", ("model/runtime/artifact/",)),
    Step("engine", "golden sample replayed\non the device", ("model/runtime/engines/", "service/lifecycle/loading.py")),
    Step("traffic", "timed, measured,\ntakes over", ("service/lifecycle/warm_up.py", "service/lifecycle/reload.py")),
)


def draw(folder: Path) -> None:
    """Draw all pictures into a folder."""
    mpl.rcParams["svg.hashsalt"] = "detr"  # the same picture is the same file
    mpl.rcParams["svg.fonttype"] = "none"
    draw_rooms(folder / "rooms.svg")
    draw_way(UPLOAD, folder / "way_of_an_upload.svg")
    draw_way(WEIGHTS, folder / "way_of_a_weight.svg")


def drawn_room_of(module: str) -> str:
    """The room of the picture that a module lies in: the longest of `ROOMS` that its name begins with."""
    module = GROUND.get(module, module)
    return max((room for room in ROOMS if within(module, room)), key=len)


def drawn_arrows() -> set[tuple[str, str]]:
    """Pairs of rooms of which the first imports from the second."""
    pairs = {
        (drawn_room_of(module), drawn_room_of(imported))
        for module in MODULES.keys() - PACKAGES
        for imported in imports(module)
    }
    return {(one, other) for one, other in pairs if one != other}


def direct(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those pairs whose second room is reached from the first by no other way, so that fewer arrows say the same."""
    below: dict[str, set[str]] = {}

    def reach(room: str) -> set[str]:
        if room not in below:
            next_ones = {other for one, other in pairs if one == room}
            below[room] = next_ones.union(*(reach(other) for other in next_ones))
        return below[room]

    return {(a, b) for a, b in pairs if not any(b in reach(c) for other, c in pairs if other == a and c != b)}


def draw_rooms(out: Path) -> None:
    """The rooms with their sizes, and arrows to what each rests on. Raises ValueError at an import that runs up."""
    figure = Figure(figsize=(12.5, 13))
    axes = _axes(figure, (-0.55, 6.15), (11.5, -0.5))
    pairs = drawn_arrows()
    for one, other in sorted(pairs):
        if ROOMS[one][1] >= ROOMS[other][1]:
            raise ValueError(f"{one} imports from {other}, which is not below it")
    for one, other in sorted(direct(pairs)):
        _arrow(axes, ROOMS[one], ROOMS[other])
    for room, place in ROOMS.items():
        own = [path for name, path in MODULES.items() if drawn_room_of(name) == room and path.name != "__init__.py"]
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in own)
        title = NAMES.get(room, room.replace(".", "/") + "/")
        _box(axes, place, title, f"{len(own)} files, {lines:,} lines", _colour(room))
    _save(figure, out)


def draw_way(steps: Sequence[Step], out: Path) -> None:
    """Steps in rows, to the right and back, each with its files. Raises FileNotFoundError where one is not there."""
    rows = -(-len(steps) // A_ROW)
    figure = Figure(figsize=(2.4 * A_ROW, 1.9 * rows))
    axes = _axes(figure, (-0.55, A_ROW - 0.45), (rows - 0.25, -0.4))
    places = [_place(index) for index in range(len(steps))]
    for step, place in zip(steps, places, strict=True):
        for name in step.files:
            if not (REPOSITORY / name).exists():
                raise FileNotFoundError(f"there is no {name}")
        _box(axes, place, step.title, step.text, _colour(step.files[-1]))
        axes.text(
            place[0], place[1] + 0.34, "\n".join(step.files), ha="center", va="top", fontsize=7, family="monospace"
        )
    for here, there in pairwise(places):
        _arrow(axes, here, there)
    _save(figure, out)


def _place(index: int) -> tuple[int, int]:
    """Column and row of a step; every other row runs back."""
    row, column = divmod(index, A_ROW)
    return (A_ROW - 1 - column if row % 2 else column), row


def _colour(name: str) -> str:
    """Of the floor that a file or a room belongs to."""
    return FLOORS[max((floor for floor in FLOORS if name.replace("/", ".").startswith(floor)), key=len)]


def _axes(figure: Figure, x: tuple[float, float], y: tuple[float, float]) -> Axes:
    axes = figure.add_axes((0, 0, 1, 1), xlim=x, ylim=y)
    axes.axis("off")
    return axes


def _box(axes: Axes, place: tuple[float, float], title: str, text: str, colour: str) -> None:
    x, y = place
    style = "round,pad=0.02,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch((x - 0.44, y - 0.26), 0.88, 0.52, boxstyle=style, fc=colour, ec="#555555", zorder=2))
    axes.text(x, y - 0.1, title, ha="center", va="center", fontsize=9, weight="bold", zorder=3)
    axes.text(x, y + 0.1, text, ha="center", va="center", fontsize=7, zorder=3)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    (x0, y0), (x1, y1) = start, end
    toward = 0.46 if x1 > x0 else -0.46
    points = ((x0 + toward, y0), (x1 - toward, y1)) if y0 == y1 else ((x0, y0 + 0.27), (x1, y1 - 0.29))
    arrow = FancyArrowPatch(*points, arrowstyle="-|>", mutation_scale=8, lw=0.7, color="#777777", zorder=1)
    axes.add_patch(arrow)


def _save(figure: Figure, out: Path) -> None:
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    draw(REPOSITORY / "docs")
