"""The metrics of several replicas as one text."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

pytest.importorskip("ray.serve", reason="needs Ray, the extra `ray`")

from service.process.metrics import Metrics
from service.ray.all_replicas import Families, with_label


def test_metrics_of_several_replicas_are_told_apart_by_a_label() -> None:
    families = []
    for name, count in (("a", 1), ("b", 2)):
        metrics = Metrics()
        metrics.model_reloads.labels(result="replaced").inc(count)
        families += [with_label(family, "replica", name) for family in metrics.registry.collect()]
    text = generate_latest(Families(families)).decode()
    assert text.count("# TYPE detr_model_reloads_total ") == 1
    (reloads,) = (family for family in text_string_to_metric_families(text) if family.name == "detr_model_reloads")
    replaced = [sample for sample in reloads.samples if sample.labels["result"] == "replaced"]
    assert {sample.labels["replica"]: sample.value for sample in replaced} == {"a": 1, "b": 2}
