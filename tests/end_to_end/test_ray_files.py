"""The files of docker/ray/ as far as they can be judged without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ray.serve", reason="needs Ray, the extra `ray`")

from pydantic import BaseModel
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from service.ray.app import build
from tests.end_to_end.conftest import REPOSITORY
from tests.end_to_end.kubernetes import VERSIONS, Kubernetes, Resource, only

FOLDER = REPOSITORY / "docker/ray"


def resources() -> list[Resource]:
    return list(yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text()))


def configurations() -> dict[str, dict[str, Any]]:
    return {
        "serve.yaml": yaml.safe_load((FOLDER / "serve.yaml").read_text()),
        "kuberay.yaml": yaml.safe_load(only(resources(), "RayService")["spec"]["serveConfigV2"]),
    }


def unknown(given: Any, read: Any) -> list[str]:
    """The names in a configuration that Ray's own reading of it does not have: it takes what it does not know."""
    if isinstance(read, BaseModel):
        read = {name: getattr(read, name) for name in type(read).model_fields}
    if isinstance(given, dict) and isinstance(read, dict):
        return [
            f"{name}.{inner}" if inner else name
            for name, value in given.items()
            for inner in (unknown(value, read[name]) if name in read else [""])
        ]
    if isinstance(given, list):
        return [name for pair in zip(given, read, strict=True) for name in unknown(*pair)]
    return []


@pytest.mark.parametrize("name", configurations())
def test_ray_reads_the_configuration_and_knows_every_name_in_it(name: str) -> None:
    given = configurations()[name]
    read = ServeDeploySchema.model_validate(given)
    assert unknown(given, read) == []
    (application,) = given["applications"]
    (deployment,) = application["deployments"]
    assert set(deployment["autoscaling_config"]) <= set(AutoscalingConfig.model_fields)
    assert application["import_path"] == f"{build.__module__}:{build.__name__}"
    build(application["args"])


def test_a_misspelt_name_is_found() -> None:
    given = configurations()["serve.yaml"]
    given["applications"][0]["deployments"][0]["num_replica"] = 2
    assert unknown(given, ServeDeploySchema.model_validate(given)) == ["applications.deployments.num_replica"]


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifest_is_valid_as_far_as_it_is_of_kubernetes_itself(
    kubernetes: Kubernetes, version: str, tmp_path: Path
) -> None:
    """KubeRay's own fields have no definition that installs; what it makes pods of is one of Kubernetes."""
    own = [resource for resource in resources() if resource["kind"] != "RayService"]
    cluster = only(resources(), "RayService")["spec"]["rayClusterConfig"]
    templates = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, **template} for template in templates]
    assert kubernetes.problems([*own, *pods], version, tmp_path) == []


def test_the_parts_of_the_manifest_speak_of_each_other() -> None:
    found = resources()
    (container,) = only(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    service = f"{only(found, 'RayService')['metadata']['name']}-serve-svc"
    assert f"{service}.$NAMESPACE.svc.cluster.local:8000" in container["args"][0]
    assert "detr:8000" in (REPOSITORY / "docker/nginx/nginx.conf").read_text()
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["proxy"]
    assert container["image"] == compose["image"]
    resolver = compose["command"][0].replace("$$", "$").partition("&&")[0]
    assert " ".join(container["args"][0].split()).startswith(" ".join(resolver.split()))
