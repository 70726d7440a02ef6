"""Training, evaluation, quantization and the report see of every file the pixels that the service sees."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from model.data.evaluation_set import EvaluationSet
from model.data.formats.coco import CocoDetection
from model.data.formats.folders import find_split
from model.data.shapes.command import write_shapes
from model.evaluate import evaluate, open_for_evaluation
from model.evaluation import pictures
from model.quantization.pictures import resized_pictures
from model.runtime.decode import LARGEST, decode
from model.runtime.resize_rule import Edges
from service.cli import main
from service.images.prepare import ImageRules, prepare
from service.process.trace import Trace
from service.settings import DEMO_MODEL
from tests.model.exif_blocks import ORIENTATIONS, Entry, as_stored, exif, jpeg_with, segment

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

RULE = Edges(24, 40)
MODES = (*Image.MODES, "La", "PA", "RGBa", "I;16B")
XMP = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="6"/>'


def saved(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def lying(image: Image.Image, image_format: str, orientation: int, **options: Any) -> bytes:
    """A file that holds the picture in another way and says in its EXIF how to turn it upright."""
    return saved(as_stored(image, orientation), image_format, exif=b"Exif\0\0" + exif(Entry(orientation)), **options)


def see_through(image: Image.Image) -> Image.Image:
    """The picture with a corner that cannot be seen, whose pixels are black, and an edge that hardly can."""
    image = image.convert("RGBA")
    width, height = image.size
    image.paste((0, 0, 0, 0), (0, 0, width // 3, height // 3))
    image.paste((9, 9, 9, 60), (width // 3, 0, width // 2, height // 3))
    return image


def sixteen_bit(image: Image.Image) -> Image.Image:
    """The picture in gray, above 255 nearly everywhere."""
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def gradient() -> Image.Image:
    rows, columns = np.mgrid[0:30, 0:46]
    return Image.fromarray(np.stack([rows * 8, columns * 5, 255 - rows * 3 - columns * 2], axis=-1).astype(np.uint8))


def every_mode() -> Iterator[tuple[str, bytes]]:
    """The gradient in every mode and format in which Pillow can save it."""
    for mode in MODES:
        for image_format in ("JPEG", "PNG", "WEBP"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                image = sixteen_bit(gradient()).convert(mode) if mode == "I;16" else gradient().convert(mode)
                yield f"{image_format} {mode}", saved(image, image_format)


def odd_files() -> Iterator[tuple[str, bytes]]:
    """What else makes a difference to what is seen."""
    palette = gradient().quantize(16)
    for image_format, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        yield f"{image_format}, transparent", saved(see_through(gradient()), image_format, **options)
    yield "PNG, transparent palette", saved(palette, "PNG", transparency=int(np.asarray(palette)[0, 0]))
    yield "PNG, transparent gray", saved(gradient().convert("L"), "PNG", transparency=100)
    yield "PNG, transparent 16-bit gray", saved(sixteen_bit(gradient()), "PNG", transparency=100 * 257)
    for orientation in ORIENTATIONS:
        for image_format in ("JPEG", "PNG", "WEBP"):
            yield f"{image_format}, EXIF {orientation}", lying(gradient(), image_format, orientation)
    yield "JPEG, XMP", jpeg_with(saved(gradient(), "JPEG"), segment(XMP))


FILES = dict([*every_mode(), *odd_files()])


def test_the_modes_are_those_that_files_have() -> None:
    modes = {"JPEG": {"1", "L", "RGB", "RGBX", "CMYK", "YCbCr"}, "WEBP": {"L", "LA", "P", "RGB", "RGBA"}}
    modes["PNG"] = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
    assert {f"{name} {mode}" for name, some in modes.items() for mode in some} <= FILES.keys()


@pytest.mark.parametrize("name", FILES)
def test_a_file_looks_the_same_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    file = FILES[name]
    (tmp_path / "a.png").write_bytes(file)
    seen = decode(file, LARGEST)
    served = prepare(file, "", ImageRules(LARGEST, RULE), Trace()).resized
    data = CocoDetection(tmp_path, write_annotations(tmp_path, seen.shape[:2]))

    np.testing.assert_array_equal(data[0][0].permute(1, 2, 0).numpy(), seen)
    np.testing.assert_array_equal(EvaluationSet(data, RULE)[0][1], served)
    np.testing.assert_array_equal(next(resized_pictures([tmp_path / "a.png"], RULE)), served)
    np.testing.assert_array_equal(reported(data, monkeypatch), seen)


def write_annotations(folder: Path, size: tuple[int, ...]) -> Path:
    image = {"id": 1, "file_name": "a.png", "height": size[0], "width": size[1]}
    path = folder / "instances.json"
    content = {"images": [image], "categories": [{"id": 1, "name": "a"}], "annotations": []}
    path.write_text(json.dumps(content))
    return path


def reported(data: CocoDetection, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.uint8]:
    """The picture that the report draws on."""
    drawn: list[NDArray[np.uint8]] = []

    def draw(picture: NDArray[np.uint8], *_: object) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        drawn.append(picture)
        return picture, picture

    monkeypatch.setattr(pictures, "_draw_boxes", draw)
    evaluator: Any = SimpleNamespace(data=data, with_segments=False)
    nothing: Any = None
    pictures.draw_pair(0, nothing, nothing, nothing, evaluator)
    return drawn[0]


def square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    return image.crop((0, 0, side, side))


# Scenes and how each is saved; what is annotated is always what is displayed.
WAYS: list[Callable[[Image.Image], bytes]] = [
    *[lambda image, number=number: lying(image, "JPEG", number, quality=95) for number in ORIENTATIONS],
    lambda image: lying(square(image), "JPEG", 6, quality=95),
    lambda image: lying(image, "PNG", 6),
    lambda image: lying(image, "WEBP", 3, lossless=True),
    lambda image: saved(sixteen_bit(image), "PNG"),
    lambda image: saved(see_through(image), "PNG"),
    lambda image: saved(image.quantize(64), "PNG"),
    lambda image: saved(image.convert("CMYK"), "JPEG", quality=95),
    lambda image: jpeg_with(saved(image, "JPEG", quality=95), segment(XMP)),
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of COCO's layout in which every picture is of another kind."""
    root = tmp_path_factory.mktemp("kinds")
    write_shapes(root, {"val": len(WAYS)}, size=128, seed=7)
    file = root / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    for record, save in zip(content["images"], WAYS, strict=True):
        path = root / "val2017" / record["file_name"]
        with Image.open(path) as image:
            path.write_bytes(save(image))
        height, width, _ = decode(path.read_bytes(), LARGEST).shape
        record.update(height=height, width=width)
    file.write_text(json.dumps(content))
    return root


def test_what_is_evaluated_is_what_is_served(scenes: Path, tmp_path: Path) -> None:
    """AP of `detr evaluate`, and of what `detr predict` answers for the same files."""
    evaluated = evaluate(open_for_evaluation(DEMO_MODEL, "cpu"), find_split("coco", scenes, "val")).figures()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(scenes / "annotations" / "instances_val2017.json"))
    ids = {str(scenes / "val2017" / image["file_name"]): image["id"] for image in truth.dataset["images"]}
    options = ["--device", "cpu", "--threshold", "0", "--json", str(tmp_path / "answers.json")]
    assert main(["predict", *ids, *options]) == 0
    found = [
        {
            "image_id": ids[answer["file"]],
            "category_id": detection["category_id"],
            "score": detection["score"],
            "bbox": [box["x1"], box["y1"], box["x2"] - box["x1"], box["y2"] - box["y1"]],
        }
        for answer in json.loads((tmp_path / "answers.json").read_text())
        for detection in answer["detections"]
        for box in [detection["box"]]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(truth, truth.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert evaluated["AP"] > 0.5
    assert [evaluated[name] for name in ("AP", "AP50", "AP75")] == pytest.approx(judge.stats[:3].tolist(), abs=1e-4)
