"""Models that are called known can be had: each has a graph, and a name that is one."""

from __future__ import annotations

import pytest

from model.checkpoint import published
from model.hub.known import KNOWN, KnownModel
from model.hub.names import read_name
from model.templates.importing import templates

GRAPHS = {template.name for template in templates()}


@pytest.mark.parametrize("model", KNOWN, ids=lambda model: model.name)
def test_a_known_model_has_a_graph_and_a_name_that_leads_to_it(model: KnownModel) -> None:
    assert any(model.name.rpartition("/")[2].startswith(graph) for graph in GRAPHS)
    assert read_name(model.name) is not None or model.name in published.FILES
    assert ("panoptic" in model.name) == (model.task == "panoptic") == ((model.quality or "").startswith("PQ"))


def test_every_published_file_is_known() -> None:
    assert {model.name.rpartition("/")[2] for model in KNOWN} >= published.FILES.keys()
