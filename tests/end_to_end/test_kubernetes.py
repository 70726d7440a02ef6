"""The manifests of docker/kubernetes render, are valid, and say what they are meant to say."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.process.metrics import Metrics
from service.settings import Settings
from tests.documentation import Block, blocks
from tests.end_to_end.conftest import REPOSITORY
from tests.end_to_end.kubernetes import MANIFESTS, VERSIONS, Kubernetes, Resource, container_of, only

pytestmark = pytest.mark.slow

COMPONENTS = sorted(path.name for path in (MANIFESTS / "components").iterdir())
OVERLAYS = sorted(path.name for path in MANIFESTS.iterdir() if path.name != "components")
NAME = "app.kubernetes.io/name"
KUSTOMIZATIONS = [
    block
    for block in blocks()
    if block.language == "yaml" and block.page == "docs/deploy.md" and "resources:\n  -" in block.text
]
DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}


@pytest.fixture(scope="module")
def base(kubernetes: Kubernetes) -> list[Resource]:
    return kubernetes.rendered(MANIFESTS / "base")


def with_components(folder: Path, *names: str, below: str = "base", **more: object) -> Path:
    """A kustomization as a user has one."""
    # A path of a kustomization cannot be absolute.
    link = folder / "kubernetes"
    if not link.exists():
        link.symlink_to(MANIFESTS)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"kubernetes/{below}"],
        "components": [f"kubernetes/components/{name}" for name in names],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization | more))
    return folder


def test_there_is_what_the_documentation_speaks_of() -> None:
    assert OVERLAYS == ["baked", "base", "gpu", "hub", "keda", "kserve", "volume"]
    assert COMPONENTS == ["gpu", "hub", "keda", "keys", "monitoring", "volume"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid(kubernetes: Kubernetes, overlay: str, version: str, tmp_path: Path) -> None:
    assert kubernetes.problems(kubernetes.rendered(MANIFESTS / overlay), version, tmp_path) == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("names", [*((name,) for name in COMPONENTS), tuple(COMPONENTS)], ids="-".join)
def test_components_are_valid_alone_and_together(
    kubernetes: Kubernetes, names: tuple[str, ...], version: str, tmp_path: Path
) -> None:
    assert kubernetes.problems(kubernetes.rendered(with_components(tmp_path, *names)), version, tmp_path) == []


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all fields that a definition names; keys of labels and the like are free."""
    free = {"labels", "matchLabels", "annotations", "limits", "requests", "data", "nodeSelector", "metadata"}
    if isinstance(value, dict):
        for key, part in value.items():
            yield (*path, key)
            if key not in free:
                yield from places(part, (*path, key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from places(part, (*path, number))


def misspelt(resource: Resource, path: tuple[str | int, ...]) -> Resource:
    """A copy with one letter too many in one field's name."""
    changed: Any = copy.deepcopy(resource)
    parent = changed
    for step in path[:-1]:
        parent = parent[step]
    parent[f"{path[-1]}x"] = parent.pop(path[-1])
    return changed  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("overlay", "kind"),
    [("keda", "ScaledObject"), ("kserve", "InferenceService"), ("monitoring", "PodMonitor")],
)
def test_every_field_of_a_custom_resource_is_caught_misspelt(
    kubernetes: Kubernetes, overlay: str, kind: str, tmp_path: Path
) -> None:
    folder = MANIFESTS / overlay if overlay in OVERLAYS else with_components(tmp_path, overlay)
    resource = only(kubernetes.rendered(folder), kind)
    paths = [path for path in places(resource) if path[0] not in {"kind", "apiVersion"}]
    assert len(paths) > 5
    for path in paths:
        assert kubernetes.definitions.problems(misspelt(resource, path)), path


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Deployment", ("spec", "template", "spec", "containers", 0, "readinessProbe", "httpGet", "path")),
        ("Deployment", ("spec", "template", "spec", "containers", 0, "securityContext", "readOnlyRootFilesystem")),
        ("Service", ("spec", "ports", 0, "targetPort")),
        ("HorizontalPodAutoscaler", ("spec", "metrics", 0, "pods", "target", "averageValue")),
        ("PodDisruptionBudget", ("spec", "selector", "matchLabels")),
        ("NetworkPolicy", ("spec", "policyTypes")),
    ],
)
def test_a_misspelt_field_of_kubernetes_is_caught(
    kubernetes: Kubernetes, base: list[Resource], kind: str, path: tuple[str | int, ...], tmp_path: Path
) -> None:
    for version in VERSIONS:
        assert kubernetes.problems([misspelt(only(base, kind), path)], version, tmp_path)


def test_a_value_of_another_type_is_caught(kubernetes: Kubernetes) -> None:
    service = only(kubernetes.rendered(MANIFESTS / "kserve"), "InferenceService")
    service["spec"]["predictor"]["containers"][0]["ports"][0]["containerPort"] = "8080"
    (problem,) = kubernetes.definitions.problems(service)
    assert problem.startswith(".spec.predictor.containers[0].ports[0].containerPort is '8080'")


def test_all_parts_speak_of_the_same_pods(base: list[Resource]) -> None:
    label = {NAME: "detr"}
    deployment = only(base, "Deployment")["spec"]
    assert deployment["template"]["metadata"]["labels"] == label
    assert deployment["selector"]["matchLabels"] == label
    assert only(base, "Service")["spec"]["selector"] == label
    assert only(base, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == label
    assert only(base, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == label
    assert only(base, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "detr"


def test_a_pod_has_no_privilege(kubernetes: Kubernetes, tmp_path: Path) -> None:
    for folder in (*(MANIFESTS / name for name in OVERLAYS), with_components(tmp_path, *COMPONENTS)):
        for resource in kubernetes.rendered(folder):
            pod = resource["spec"].get("predictor") if resource["kind"] == "InferenceService" else None
            if resource["kind"] == "Deployment":
                pod = resource["spec"]["template"]["spec"]
            if pod is None:
                continue
            assert pod["automountServiceAccountToken"] is False
            # A Service `detr` would set DETR_PORT to tcp://...
            assert pod["enableServiceLinks"] is False
            context = pod["securityContext"]
            assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, 10001, 10001)
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in (*pod["containers"], *pod.get("initContainers", [])):
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
                assert re.fullmatch(r"detr-serve:[\w.]+", container["image"]), "no tag is `latest`, which changes"


def test_a_pod_that_goes_has_the_time_it_needs(kubernetes: Kubernetes, base: list[Resource]) -> None:
    predictor = only(kubernetes.rendered(MANIFESTS / "kserve"), "InferenceService")["spec"]["predictor"]
    for pod in (only(base, "Deployment")["spec"]["template"]["spec"], predictor):
        (container,) = pod["containers"]
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pause + DEFAULTS["drain_timeout_ms"] / 1000 + 2 < pod["terminationGracePeriodSeconds"]
        start = container["startupProbe"]
        assert start["periodSeconds"] * start["failureThreshold"] == 300


def test_the_environment_names_settings_that_exist(kubernetes: Kubernetes, tmp_path: Path) -> None:
    text = kubernetes.render(with_components(tmp_path, *COMPONENTS)) + kubernetes.render(MANIFESTS / "kserve")
    named = {name.removeprefix("DETR_").lower() for name in re.findall(r"\bname: (DETR_\w+)", text)}
    assert {"metrics_port", "cpu_threads", "engine_threads", "model", "api_keys_file"} <= named
    assert named <= Settings.model_fields.keys()


@pytest.mark.parametrize("block", KUSTOMIZATIONS, ids=str)
def test_a_kustomization_of_the_documentation_renders(kubernetes: Kubernetes, block: Block, tmp_path: Path) -> None:
    (tmp_path / "kubernetes").symlink_to(MANIFESTS)
    (tmp_path / "kustomization.yaml").write_text(block.text)
    resources = kubernetes.rendered(tmp_path)
    assert kubernetes.problems(resources, VERSIONS[0], tmp_path) == []
    for name in re.findall(r"newName: (.*)", block.text):
        assert f"image: {name}:" in kubernetes.render(tmp_path)


def test_the_documentation_names_every_overlay_and_component() -> None:
    told = (REPOSITORY / "docs/deploy.md").read_text()
    applied = set(re.findall(r"kubectl apply -k docker/kubernetes/(\w+)", told))
    assert applied == {"base", "baked", "volume", "hub"}
    assert set(re.findall(r"kubernetes/(\w+)", told)) - {"components", "master"} <= {*OVERLAYS}
    assert set(re.findall(r"components/(\w+)", told)) | {"hub", "volume"} == set(COMPONENTS)


def test_every_autoscaler_follows_the_same_metric(kubernetes: Kubernetes, base: list[Resource]) -> None:
    (metric,) = only(base, "HorizontalPodAutoscaler")["spec"]["metrics"]
    keda = kubernetes.rendered(MANIFESTS / "keda")
    (trigger,) = only(keda, "ScaledObject")["spec"]["triggers"]
    service = only(kubernetes.rendered(MANIFESTS / "kserve"), "InferenceService")["spec"]["predictor"]
    (kserve,) = service["autoScaling"]["metrics"]
    assert (
        trigger["metadata"]["query"]
        == kserve["external"]["metric"]["query"]
        == 'sum(detr_images_in_flight{job="detr"})'
    )
    assert metric["pods"]["metric"]["name"] == "detr_images_in_flight"
    assert "# TYPE detr_images_in_flight gauge" in Metrics().text().decode()
    wanted = metric["pods"]["target"]["averageValue"]
    assert wanted == trigger["metadata"]["threshold"] == kserve["external"]["target"]["averageValue"]
    assert "HorizontalPodAutoscaler" not in [resource["kind"] for resource in keda], "KEDA makes its own"
    assert "replicas" not in only(base, "Deployment")["spec"], "it would undo what the autoscaler did"


def test_the_service_reaches_nobody_and_metrics_are_for_prometheus(base: list[Resource]) -> None:
    policy = only(base, "NetworkPolicy")["spec"]
    assert (policy["policyTypes"], policy["egress"]) == (["Ingress", "Egress"], [])
    http, metrics = policy["ingress"]
    assert http == {"ports": [{"port": "http"}]}
    assert metrics["from"][0]["podSelector"]["matchLabels"] == {NAME: "prometheus"}
    assert [port["name"] for port in only(base, "Service")["spec"]["ports"]] == ["http"]


def test_a_model_of_the_hub_is_fetched_before_the_service_starts_and_by_its_own_image(
    kubernetes: Kubernetes, tmp_path: Path
) -> None:
    images = [{"name": "detr-serve", "newName": "registry.example/detr", "newTag": "7"}]
    model = [{"name": "detr-model", "literals": ["DETR_MODEL=someone/detr"]}]
    folder = with_components(tmp_path, "hub", below="gpu", images=images, configMapGenerator=model)
    resources = kubernetes.rendered(folder)
    pod = only(resources, "Deployment")["spec"]["template"]["spec"]
    (fetching,), (serving,) = pod["initContainers"], pod["containers"]
    assert fetching["image"] == serving["image"] == "registry.example/detr:7"
    named = only(resources, "ConfigMap")
    assert named["data"]["DETR_MODEL"] == "someone/detr"
    for container in (fetching, serving):
        assert container["envFrom"] == [{"configMapRef": {"name": named["metadata"]["name"]}}]
        assert {"name": "model-cache", "mountPath": "/var/cache/detr"} in container["volumeMounts"]
    assert {"name": "HF_HUB_OFFLINE", "value": "1"} in serving["env"]
    assert "HF_TOKEN" not in str(serving)


def test_keys_are_mounted_so_that_they_can_change(kubernetes: Kubernetes, tmp_path: Path) -> None:
    container = container_of(kubernetes.rendered(with_components(tmp_path, "keys")))
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "keys")
    assert "subPath" not in mount, "such a file stays as it was"
    assert {"name": "DETR_API_KEYS_FILE", "value": f"{mount['mountPath']}/api-keys"} in container["env"]
