"""Which texts are names on the hub."""

from __future__ import annotations

import pytest

from model.hub.names import HubError, HubName, read_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("facebook/detr-resnet-50", HubName("facebook/detr-resnet-50")),
        ("facebook/detr-resnet-50@v1", HubName("facebook/detr-resnet-50", "v1")),
        ("a_b/c.d-1@refs/pr/3", HubName("a_b/c.d-1", "refs/pr/3")),
    ],
)
def test_a_name_has_an_owner_and_may_have_a_revision(text: str, name: HubName) -> None:
    assert read_name(text) == name
    assert str(name) == text


@pytest.mark.parametrize(
    "text",
    ["", "detr", "a/b/c", "/a/b", "./a/b", "../b", "a\\b", "a/", "/b", "a/b@", "a /b", "a/b.onnx", "a/b.pth", "~/b"],
)
def test_anything_else_is_a_path(text: str) -> None:
    assert read_name(text) is None


def test_a_revision_may_be_given_beside_the_name() -> None:
    assert read_name("a/b", "v1") == read_name("a/b@v1", "v1") == HubName("a/b", "v1")
    with pytest.raises(HubError, match="a/b@v1 names a revision already, and --revision names v2"):
        read_name("a/b@v1", "v2")
