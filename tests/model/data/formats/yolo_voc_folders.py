"""The pictures of `layout_folders` as tools export them in YOLO's and Pascal VOC's formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.model.data.formats.layout_folders import HEIGHT, PICTURES, WIDTH, write_pictures

NAMES = ("fork", "cup")
HALVES = {"train": PICTURES[:3], "val": PICTURES[3:]}
BOX = (4, 2, 12, 8)  # of every picture: left, top, width, height


def yolo_line(class_index: int, *, segment: bool = False) -> str:
    """The box, or its outline, in fractions of the picture."""
    left, top, width, height = BOX
    if not segment:
        values = [(left + width / 2) / WIDTH, (top + height / 2) / HEIGHT, width / WIDTH, height / HEIGHT]
    else:
        corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
        values = [value for x, y in corners for value in (x / WIDTH, y / HEIGHT)]
    return " ".join([str(class_index), *(f"{value:.9f}" for value in values)])


def write(file: Path, text: str) -> Path:
    """A text, in a folder that is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def write_yolo(images: Path, labels: Path, pictures: list[str], *, segment: bool = False) -> None:
    """Pictures, and a file of labels for each."""
    write_pictures(images, pictures)
    for number, name in enumerate(pictures, 1):
        write(labels / Path(name).with_suffix(".txt"), yolo_line(number % 2, segment=segment) + "\n")


def ultralytics(root: Path) -> None:
    """As its own data sets are."""
    for split, pictures in HALVES.items():
        write_yolo(root / "images" / split, root / "labels" / split, pictures)
    write(root / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: fork\n  1: cup\n")


def roboflow(root: Path) -> None:
    """YOLOv8, whose paths lead out of the folder."""
    for split, pictures in HALVES.items():
        folder = root / ("valid" if split == "val" else split)
        write_yolo(folder / "images", folder / "labels", pictures, segment=True)
    text = "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['fork', 'cup']\nroboflow:\n  version: 3\n"
    write(root / "data.yaml", text)


def cvat(root: Path) -> None:
    """Lists of pictures, and a path of another machine."""
    for split, pictures in HALVES.items():
        write_yolo(root / "images" / split, root / "labels" / split, pictures)
        lines = [f"data/images/{split}/{name}\n" for name in pictures]
        write(root / f"{split}.txt", "".join(lines))
    write(root / "data.yaml", "path: /home/anna/data\ntrain: train.txt\nval: val.txt\nnames: {0: fork, 1: cup}\n")


def darknet(root: Path) -> None:
    """YOLO 1.1 of CVAT, labels beside pictures."""
    for split, pictures in (("train", HALVES["train"]), ("valid", HALVES["val"])):
        write_yolo(root / f"obj_{split}_data", root / f"obj_{split}_data", pictures)
        write(root / f"{split}.txt", "".join(f"data/obj_{split}_data/{name}\n" for name in pictures))
    write(root / "obj.names", "fork\ncup\n")
    said = "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
    write(root / "obj.data", said)


def label_studio(root: Path) -> None:
    """A list of classes, and no splits."""
    write_yolo(root / "images", root / "labels", PICTURES)
    write(root / "classes.txt", "fork\ncup\n")
    write(root / "notes.json", "{}")


def label_img(root: Path) -> None:
    """Everything in one folder."""
    write_yolo(root, root, PICTURES)
    write(root / "classes.txt", "fork\ncup\n")


YOLO: dict[str, Callable[[Path], None]] = {
    "Ultralytics": ultralytics,
    "Roboflow": roboflow,
    "CVAT": cvat,
    "Darknet": darknet,
    "Label Studio": label_studio,
    "labelImg": label_img,
}


def voc_xml(picture: str, name: str, *, first: int = 0, database: str = "Unknown", more: str = "") -> str:
    """A file of one object; `first` is the number of the first pixel of a row."""
    left, top, width, height = BOX
    corners = (left + first, top + first, left + width, top + height)
    box = "".join(
        f"<{corner}>{value}</{corner}>" for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return (
        f"<annotation><folder>x</folder><filename>{picture}</filename>"
        f"<source><database>{database}</database></source>"
        f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        f"<object><name>{name}</name><difficult>0</difficult><bndbox>{box}</bndbox>{more}</object></annotation>"
    )


def write_voc(images: Path, annotations: Path, pictures: list[str], *, first: int = 0, database: str = "x") -> None:
    """Pictures, and an XML file for each."""
    write_pictures(images, pictures)
    for number, name in enumerate(pictures, 1):
        text = voc_xml(name, NAMES[number % 2], first=first, database=database)
        write(annotations / Path(name).with_suffix(".xml"), text)


def devkit(root: Path) -> None:
    """As the challenge's own data is."""
    write_voc(root / "JPEGImages", root / "Annotations", PICTURES, first=1, database="The VOC2007 Database")
    for split, pictures in HALVES.items():
        write(root / f"ImageSets/Main/{split}.txt", "".join(f"{Path(name).stem}\n" for name in pictures))


def cvat_voc(root: Path) -> None:
    """Without subsets."""
    write_voc(root / "JPEGImages", root / "Annotations", PICTURES)
    write(root / "ImageSets/Main/default.txt", "".join(f"{Path(name).stem}\n" for name in PICTURES))
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\nfork:1,2,3::\n")


def roboflow_voc(root: Path) -> None:
    """XML beside pictures, a folder for each split."""
    for split, pictures in (("train", HALVES["train"]), ("valid", HALVES["val"])):
        write_voc(root / split, root / split, pictures, first=1, database="roboflow.com")


def label_studio_voc(root: Path) -> None:
    """Without splits and lists."""
    write_voc(root / "images", root / "Annotations", PICTURES)


def label_img_voc(root: Path) -> None:
    """XML beside pictures."""
    write_voc(root, root, PICTURES)


VOC: dict[str, Callable[[Path], None]] = {
    "Pascal VOC": devkit,
    "CVAT": cvat_voc,
    "Roboflow": roboflow_voc,
    "Label Studio": label_studio_voc,
    "labelImg": label_img_voc,
}
WITHOUT_SPLITS = ("Label Studio", "labelImg")  # and CVAT's VOC
