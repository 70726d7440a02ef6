import json
from pathlib import Path

import pytest

from model.categories.names import NamesError, distinct_color, read_names
from model.runtime.categories import Category


def written(tmp_path: Path, text: str, name: str = "names.txt") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_text_file_names_one_class_a_line(tmp_path: Path) -> None:
    categories = read_names(written(tmp_path, "cat\n traffic light \nétang\n\n")).categories
    assert [(c.id, c.name, c.isthing) for c in categories] == [
        (0, "cat", True),
        (1, "traffic light", True),
        (2, "étang", True),
    ]


def test_a_json_list_of_names_gives_the_class_index_as_id(tmp_path: Path) -> None:
    categories = read_names(written(tmp_path, '["N/A", "cat"]', "names.json")).categories
    assert categories[1] == Category(1, "cat", True, distinct_color(1))


def test_json_objects_say_id_stuff_and_color(tmp_path: Path) -> None:
    entries = [{"id": 7, "name": "cat"}, {"id": 9, "name": "sky", "isthing": 0, "color": [1, 2, 3]}]
    categories = read_names(written(tmp_path, json.dumps(entries), "names.json")).categories
    assert categories == (Category(7, "cat", True, distinct_color(0)), Category(9, "sky", False, (1, 2, 3)))


def test_ids_say_which_class_has_which_name(tmp_path: Path) -> None:
    def named(entries: object, count: int) -> list[tuple[int, str]]:
        path = written(tmp_path, json.dumps(entries), "names.json")
        return [(category.id, category.name) for category in read_names(path).of_classes(count)]

    of_pets = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 0, "name": "owl"}]
    assert named(of_pets, 3) == [(0, "owl"), (1, "cat"), (2, "dog")]
    # With one name a class, classes have the order of the ids; with fewer, a class is its id.
    of_coco = [{"id": 4, "name": "dog", "supercategory": "animal"}, {"id": 2, "name": "cat", "supercategory": "animal"}]
    assert named(of_coco, 2) == [(2, "cat"), (4, "dog")]
    assert named(of_coco, 5) == [(0, "N/A"), (1, "N/A"), (2, "cat"), (3, "N/A"), (4, "dog")]
    assert named({"images": [], "categories": of_coco}, 2) == named({"4": "dog", "2": "cat"}, 2)
    assert named({"model_type": "detr", "id2label": {"0": "owl", "1": "cat"}}, 2) == [(0, "owl"), (1, "cat")]
    for entries, count, reason in (
        (of_coco, 4, "2 category names, with ids up to 4, for 4 classes"),
        (of_coco, 1, "2 category names, with ids up to 4, for 1 classes"),
        (["cat", "dog"], 3, "2 category names for 3 classes"),
    ):
        with pytest.raises(NamesError, match=reason):
            named(entries, count)


def test_colors_that_are_chosen_differ_for_hundreds_of_classes() -> None:
    assert len({distinct_color(index) for index in range(300)}) == 300


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("names.txt", "\n\n", "names no class"),
        ("names.txt", "cat\n\ndog", "class 1: the name is missing or empty"),
        ("names.json", "{", "is not JSON"),
        ("names.json", '{"name": "cat"}', "must hold a list"),
        ("names.json", "[]", "names no class"),
        ("names.json", "[3]", "class 0: the name is missing or empty"),
        ("names.json", '[{"id": 1}]', "class 0: the name is missing"),
        ("names.json", '[{"name": "cat", "colour": [1, 2, 3]}]', "class 0: unknown field colour"),
        ("names.json", '[{"name": "cat", "id": -1}]', "the id must be an integer"),
        ("names.json", '[{"name": "cat", "id": true}]', "the id must be an integer"),
        ("names.json", '[{"name": "cat", "isthing": "no"}]', "isthing must be true or false"),
        ("names.json", '[{"name": "cat", "color": [1, 2]}]', "three integers from 0 to 255"),
        ("names.json", '[{"name": "cat", "color": [1, 2, 256]}]', "three integers from 0 to 255"),
        ("names.json", '[{"name": "cat", "id": 2}, "dog", {"name": "cow", "id": 2}]', "the same id 2"),
    ],
)
def test_a_names_file_that_cannot_be_used_says_where(tmp_path: Path, name: str, text: str, reason: str) -> None:
    with pytest.raises(NamesError, match=reason) as raised:
        read_names(written(tmp_path, text, name))
    assert name in str(raised.value)


def test_a_file_that_is_no_text_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    with pytest.raises(NamesError, match=r"names\.txt cannot be read"):
        read_names(path)
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(NamesError, match=r"names\.txt cannot be read"):
        read_names(path)
