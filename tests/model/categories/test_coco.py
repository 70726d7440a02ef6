from torchvision.models._meta import _COCO_CATEGORIES

from model.categories.coco import (
    UNNAMED,
    coco_categories,
    detection_categories,
    panoptic_categories,
)


def test_class_index_and_category_id_are_the_same_number() -> None:
    assert [category.id for category in detection_categories()] == list(range(91))
    assert [category.id for category in panoptic_categories()] == list(range(250))


def test_detection_names_are_those_that_torchvision_ships() -> None:
    theirs = [name if name not in ("__background__", "N/A") else UNNAMED for name in _COCO_CATEGORIES]
    assert [category.name for category in detection_categories()] == theirs


def test_coco_names_80_things_and_53_stuff_classes() -> None:
    named = [category for category in panoptic_categories() if category.name != UNNAMED]
    assert sum(category.isthing for category in named) == 80
    assert sum(not category.isthing for category in named) == 53
    assert (named[-1].id, named[-1].name) == (200, "rug-merged")


def test_a_category_is_a_thing_up_to_id_90() -> None:
    assert all(category.isthing == (category.id <= 90) for category in panoptic_categories())


def test_the_panoptic_things_are_the_detection_categories() -> None:
    assert panoptic_categories()[:91] == detection_categories()


def test_names_are_unique_and_so_are_colors() -> None:
    named = [category for category in panoptic_categories() if category.name != UNNAMED]
    assert len({category.name for category in named}) == len(named) == 133
    assert len({category.color for category in named}) == 133
    assert all(0 <= channel <= 255 for category in named for channel in category.color)


def test_some_well_known_entries_are_right() -> None:
    by_id = {category.id: category for category in panoptic_categories()}
    assert (by_id[1].name, by_id[1].color) == ("person", (220, 20, 60))
    assert (by_id[44].name, by_id[67].name, by_id[90].name) == ("bottle", "dining table", "toothbrush")
    assert (by_id[149].name, by_id[149].color) == ("road", (128, 64, 128))
    assert (by_id[187].name, by_id[187].color) == ("sky-other-merged", (70, 130, 180))


def test_a_class_count_that_is_not_cocos_has_no_coco_categories() -> None:
    assert coco_categories(91) == detection_categories()
    assert coco_categories(250) == panoptic_categories()
    assert coco_categories(80) is None
