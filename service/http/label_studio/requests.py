"""What Label Studio sends to an ML backend, read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from service.errors import BrokenJsonError, EmptyUploadError
from service.http.label_studio.labelling import Control, read_labelling
from service.images.json_text import JsonText, read_json_text
from service.images.several_images import MOST_IMAGES, ImagePart

# A task comes with its annotations; pictures in base64 do not count.
_MAX_REST = 2 * 2**20  # bytes of JSON


@dataclass(frozen=True)
class TaskPicture:
    """A picture of a task, and the controls that label it."""

    task: int  # its place in the request
    task_id: Any  # as Label Studio has it
    controls: Sequence[Control]
    source: str  # where it is to be fetched, if it is not in the request
    part: ImagePart | None = None  # its bytes, if it is


@dataclass(frozen=True)
class PredictRequest:
    """Tasks whose pictures are to be labelled."""

    tasks: int  # how many
    pictures: Sequence[TaskPicture]
    without: int  # how many tasks have no picture where the configuration says that it is


def read_predict_request(body: bytes) -> PredictRequest:
    """The tasks of a request, and what is to be labelled in them.

    Raises:
        BrokenJsonError: it is no such request.
        LabellingError: its configuration asks for nothing that a model can label.
    """
    text, value = _read(body)
    tasks, config = value.get("tasks"), value.get("label_config")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks) or not isinstance(config, str):
        raise BrokenJsonError("the JSON has to have the tasks, a list of objects, and the label_config, a text")
    if len(tasks) > MOST_IMAGES:
        raise BrokenJsonError(f"the request has more than {MOST_IMAGES} tasks; ask for fewer at a time")
    controls = read_labelling(text.text(config))
    of_each = [_pictures(text, place, task, controls) for place, task in enumerate(tasks)]
    return PredictRequest(len(tasks), [picture for found in of_each for picture in found], of_each.count([]))


def read_setup_request(body: bytes) -> tuple[str, list[Control]]:
    """What a project calls itself, and the controls of its labelling configuration. Raises what
    `read_predict_request` does.
    """
    text, value = _read(body)
    config = value.get("schema")
    if not isinstance(config, str):
        raise BrokenJsonError("the JSON has to have the schema, the labelling configuration as a text")
    return str(value.get("project"))[:40], read_labelling(text.text(config))


def read_event(body: bytes) -> str:
    """What has happened, by a request of Label Studio's webhooks. Raises BrokenJsonError if it is none."""
    _, value = _read(body)
    return str(value.get("action"))


def _read(body: bytes) -> tuple[JsonText, dict[str, Any]]:
    text = read_json_text(body, MOST_IMAGES, _MAX_REST)
    if not isinstance(text.value, dict):
        raise BrokenJsonError("the JSON has to be an object")
    return text, text.value


def _pictures(text: JsonText, place: int, task: dict[str, Any], controls: Sequence[Control]) -> list[TaskPicture]:
    data = task.get("data")
    found = []
    for key, group in groupby(sorted(controls, key=lambda control: control.key), lambda control: control.key):
        value = data.get(key) if isinstance(data, dict) else None
        if isinstance(value, str):
            is_inside = text.begins(value, "data:")
            part = partial(_decoded, text, value) if is_inside else None
            source = "" if is_inside else text.text(value)
            found.append(TaskPicture(place, task.get("id"), list(group), source, part))
    return found


def _decoded(text: JsonText, value: str) -> bytes:
    found = text.base64(value, "a picture in a task")
    if not found:
        raise EmptyUploadError("a picture in a task is empty")
    return found
