"""A project's labelling configuration in Label Studio: for which pictures it asks, and in which shapes and labels.

https://labelstud.io/tags/: a control, such as <RectangleLabels name="label" toName="image">, has its labels inside; the
object that it names, <Image name="image" value="$image"/>, says where a task has its picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from defusedxml import DefusedXmlException  # type: ignore[import-untyped]  # refuses entities, which can be bombs
from defusedxml.ElementTree import ParseError, fromstring  # type: ignore[import-untyped]

from model.runtime.categories import Category
from service.errors import LabellingError

Element = Any  # of xml.etree.ElementTree, which nothing that serves imports: it would expand entities
Shape = Literal["rectanglelabels", "brushlabels", "polygonlabels"]
_TAGS = "RectangleLabels, BrushLabels or PolygonLabels"
_SEPARATORS = re.compile(r"[\s_-]+")


@dataclass(frozen=True)
class Control:
    """One way to label a picture."""

    shape: Shape
    name: str  # what results call from_name
    picture: str  # the name of the object that is labelled: to_name
    key: str  # under which a task's data have the picture
    labels: Mapping[str, Sequence[str]]  # what results call a label, and the words that a model may have for it
    threshold: float | None  # score above which shapes are wanted, if it says so


@dataclass(frozen=True)
class Matching:
    """What of a model's classes a control has labels for."""

    label_of: Mapping[int, str]  # by class index
    unmatched: Sequence[str]  # labels of which the model knows nothing


def read_labelling(config: str) -> list[Control]:
    """The controls by which a model can label pictures, in their order.

    Raises:
        LabellingError: it is no such configuration, or has no control of these shapes for a picture.
    """
    try:
        root = fromstring(config)
    except (ParseError, DefusedXmlException, ValueError):
        raise LabellingError("the labelling configuration is not valid XML, or has entities") from None
    tags = [(element.tag.lower(), _attributes(element), element) for element in root.iter() if _is_tag(element)]
    keys = {
        found["name"]: found["value"] for tag, found, _ in tags if tag == "image" and {"name", "value"} <= found.keys()
    }
    controls = list(_controls(tags, keys))
    if not controls:
        raise LabellingError(
            f"the labelling configuration has no {_TAGS} for an Image whose value is one of the task's data"
        )
    return controls


def match(control: Control, categories: Sequence[Category]) -> Matching:
    """Which label each class has: of the same name, or named in the label's `predicted_values`; case, spaces, hyphens
    and underscores do not count.
    """
    indices: dict[str, list[int]] = {}
    for index, category in enumerate(categories):
        indices.setdefault(_plain(category.name), []).append(index)
    label_of: dict[int, str] = {}
    unmatched = []
    for label, words in control.labels.items():
        found = [index for word in words for index in indices.get(_plain(word), ())]
        for index in found:
            label_of.setdefault(index, label)
        if not found:
            unmatched.append(label)
    return Matching(label_of, unmatched)


def _controls(tags: Sequence[tuple[str, Mapping[str, str], Element]], keys: Mapping[str, str]) -> Iterator[Control]:
    for tag, found, element in tags:
        for shape in get_args(Shape):
            if tag != shape or "name" not in found:
                continue
            for picture in found.get("toname", "").split(","):
                value = keys.get(picture.strip(), "")
                if re.fullmatch(r"\$\w+", value):
                    labels, threshold = dict(_labels(element)), _threshold(found)
                    yield Control(shape, found["name"], picture.strip(), value[1:], labels, threshold)


def _labels(control: Element) -> Iterator[tuple[str, list[str]]]:
    """The labels in a control. Results have the alias of one that has an alias, as Label Studio's own have."""
    for element in control.iter():
        found = _attributes(element) if _is_tag(element) and element.tag.lower() == "label" else {}
        names = [found[name] for name in ("alias", "value") if found.get(name)]
        if names:
            yield names[0], [*names, *found.get("predicted_values", "").split(",")]


def _threshold(attributes: Mapping[str, str]) -> float | None:
    """The score that Label Studio's own backends read here."""
    text = attributes.get("model_score_threshold", "")
    try:
        score = float(text) if text else None
    except ValueError:
        score = -1
    if score is not None and not 0 <= score <= 1:
        raise LabellingError("model_score_threshold of the labelling configuration has to be from 0 to 1")
    return score


def _attributes(element: Element) -> dict[str, str]:
    return {name.lower(): value for name, value in element.attrib.items()}


def _is_tag(element: Element) -> bool:
    return isinstance(element.tag, str)  # and no comment


def _plain(name: str) -> str:
    return " ".join(_SEPARATORS.split(name.casefold())).strip()
