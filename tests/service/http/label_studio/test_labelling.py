"""Labelling configurations of Label Studio as people write them."""

from __future__ import annotations

import pytest

from model.runtime.categories import Category
from service.errors import LabellingError
from service.http.label_studio.labelling import match, read_labelling

CONFIG = """
<View className="a">
  <!-- what is to be labelled -->
  <Header value="Boxes and masks"/>
  <Image name="photo" value="$image" zoom="true"/>
  <RectangleLabels name="box" toName="photo" model_score_threshold="0.25">
    <Label value="traffic_light" background="green"/>
    <View><Label value="Vehicle" predicted_values="car, TRUCK"/></View>
    <Label value="Perro" alias="dog"/>
    <Label value="Person of interest"/>
  </RectangleLabels>
  <brushlabels name="mask" toname="photo"><Label value="Car"/></brushlabels>
  <KeyPointLabels name="point" toName="photo"><Label value="Car"/></KeyPointLabels>
  <Text name="text" value="$text"/>
  <PolygonLabels name="strange" toName="text"><Label value="Car"/></PolygonLabels>
</View>
"""


def categories(*names: str) -> list[Category]:
    return [Category(number, name, True, (0, 0, 0)) for number, name in enumerate(names, start=1)]


def test_controls_for_pictures_are_read_and_others_are_not() -> None:
    box, mask = read_labelling(CONFIG)
    assert (box.shape, box.name, box.picture, box.key, box.threshold) == (
        "rectanglelabels",
        "box",
        "photo",
        "image",
        0.25,
    )
    assert list(box.labels) == ["traffic_light", "Vehicle", "dog", "Person of interest"]
    assert (mask.shape, mask.name, mask.picture, mask.threshold) == ("brushlabels", "mask", "photo", None)


def test_labels_are_matched_as_people_write_them() -> None:
    box, mask = read_labelling(CONFIG)
    known = categories("Traffic  Light", "car", "truck", "Dog", "cat")
    assert match(box, known).label_of == {0: "traffic_light", 1: "Vehicle", 2: "Vehicle", 3: "dog"}
    assert match(box, known).unmatched == ["Person of interest"]
    assert match(mask, known).label_of == {1: "Car"}
    assert match(mask, categories("car", "car")).label_of == {0: "Car", 1: "Car"}


def test_a_control_of_two_pictures_is_two() -> None:
    config = (
        "<View><Image name='a' value='$left'/><Image name='b' value='$right'/>"
        "<RectangleLabels name='box' toName='a, b'><Label value='car'/></RectangleLabels></View>"
    )
    assert [(control.picture, control.key) for control in read_labelling(config)] == [("a", "left"), ("b", "right")]


@pytest.mark.parametrize(
    "config",
    [
        "",
        "<View>",
        "<View/>",
        "not XML",
        "<View><Image name='i' value='$i'/></View>",
        "<View><RectangleLabels name='r' toName='i'><Label value='car'/></RectangleLabels></View>",
        CONFIG.replace("<Image", "<Video"),
        "<!DOCTYPE a [<!ENTITY b 'bbbb'>]><View>&b;</View>",
        "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><View>&b;</View>",
        CONFIG.replace("0.25", "much"),
        CONFIG.replace("0.25", "nan"),
    ],
)
def test_what_asks_for_nothing_is_refused(config: str) -> None:
    with pytest.raises(LabellingError, match=r"^[^\n]*labelling configuration[^\n]*$"):
        read_labelling(config)
