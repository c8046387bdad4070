"""What runs the product in containers: docker-compose.yml with its balancer, and docs/operations/kubernetes."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from kubernetes_validate.utils import ValidationError, validate

from models import settings as settings_module
from tests.architecture.sources import ROOT

COMPOSE = ROOT / "docker-compose.yml"
HAPROXY = ROOT / "docs" / "operations" / "haproxy.cfg"
KUBERNETES = ROOT / "docs" / "operations" / "kubernetes"
KUBERNETES_VERSIONS = ("1.31", "1.35")
"""The oldest and a new one, of what clusters run."""
SETTING = re.compile(r'"([A-Z][A-Z_]+)"')


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def settings_known() -> set[str]:
    return set(SETTING.findall(Path(settings_module.__file__).read_text()))


def objects() -> Iterator[dict[str, Any]]:
    for path in sorted(KUBERNETES.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from yaml.safe_load_all(path.read_text())


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [each for each in objects() if each["kind"] in kinds]


def name_of(found: dict[str, Any]) -> str:
    return f"{found['kind']} {found['metadata']['name']}"


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each with its object's name and its pod."""
    for found in of_kind("Deployment", "Job"):
        pod = found["spec"]["template"]["spec"]
        for container in pod["containers"]:
            yield name_of(found), pod, container


def test_compose_has_each_role_and_what_it_names_is_there() -> None:
    found = compose()
    services = found["services"]
    assert {
        "postgres",
        "redis",
        "migrate",
        "balancer",
        "api",
        "realtime",
        "worker",
        "beat",
    } <= services.keys()
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= services.keys(), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            there = (ROOT / source).exists() if source.startswith(".") else source in found["volumes"]
            assert there, f"{name} mounts {volume}"


def test_compose_scales_what_has_no_port_of_the_host() -> None:
    services = compose()["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["balancer"]
    assert not any("container_name" in service for service in services.values())
    roles = {name: services[name]["environment"]["WEB_ROLE"] for name in ("api", "realtime")}
    assert roles == {"api": "api", "realtime": "realtime"}


def test_compose_sets_what_the_product_reads() -> None:
    known = settings_known()
    for name in ("migrate", "api", "realtime", "worker", "beat"):
        environment = compose()["services"][name]["environment"]
        assert environment.keys() <= known, name


def test_the_balancer_knows_the_services_and_their_health(app: Flask) -> None:
    text = HAPROXY.read_text()
    assert set(re.findall(r"server-template \w+ \d+ (\w+):8000", text)) == {"api", "realtime"}
    checked = re.findall(r"option httpchk GET (\S+)", text)
    assert len(checked) == 2
    assert set(checked) <= {rule.rule for rule in app.url_map.iter_rules()}
    assert all(
        rule.rule.startswith("/ws/") for rule in app.url_map.iter_rules() if rule.endpoint == "realtime.serve"
    )


def test_the_balancers_file_is_one() -> None:
    haproxy = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if haproxy is None:
        pytest.skip("HAProxy is not installed")
    ran = subprocess.run([haproxy, "-c", "-f", HAPROXY], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "warning" not in ran.stderr.lower()


def test_kustomize_names_each_file() -> None:
    named = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    assert sorted(named) == sorted(
        path.name for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml"
    )


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("found", list(objects()), ids=name_of)
def test_each_object_is_as_kubernetes_has_it(found: dict[str, Any], version: str) -> None:
    validate(found, version, strict=True)


def test_a_field_that_kubernetes_does_not_have_is_found() -> None:
    (found,) = [each for each in objects() if name_of(each) == "Deployment api"]
    found["spec"]["template"]["spec"]["containers"][0]["porbs"] = []
    with pytest.raises(ValidationError):
        validate(found, KUBERNETES_VERSIONS[0], strict=True)


def test_pods_are_told_what_the_product_reads() -> None:
    known = settings_known()
    (configuration,) = of_kind("ConfigMap")
    assert configuration["data"].keys() <= known
    assert all(isinstance(value, str) for value in configuration["data"].values())
    for name, _, container in containers():
        assert {each["name"] for each in container.get("env", ())} <= known, name


def test_selectors_services_and_volumes_meet() -> None:
    labels = {
        found["metadata"]["name"]: found["spec"]["template"]["metadata"]["labels"]
        for found in of_kind("Deployment")
    }
    for found in of_kind("Deployment"):
        name = found["metadata"]["name"]
        assert found["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
    for found in of_kind("Service"):
        assert found["spec"]["selector"].items() <= labels[found["metadata"]["name"]].items()
    for found in of_kind("PodDisruptionBudget"):
        assert found["spec"]["selector"]["matchLabels"].items() <= labels[found["metadata"]["name"]].items()
    for found in of_kind("HorizontalPodAutoscaler"):
        assert found["spec"]["scaleTargetRef"]["name"] in labels
    (ingress,) = of_kind("Ingress")
    services = {found["metadata"]["name"] for found in of_kind("Service")}
    for rule in ingress["spec"]["rules"]:
        assert {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == services
    claims = {found["metadata"]["name"] for found in of_kind("PersistentVolumeClaim")}
    for name, pod, container in containers():
        volumes = {each["name"] for each in pod["volumes"]}
        assert {each["name"] for each in container["volumeMounts"]} == volumes, name
        used = {
            each["persistentVolumeClaim"]["claimName"]
            for each in pod["volumes"]
            if "persistentVolumeClaim" in each
        }
        assert used <= claims, name


def test_probes_ask_what_is_served(app: Flask) -> None:
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    asked = [
        container[probe]["httpGet"]["path"]
        for _, _, container in containers()
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        if probe in container
    ]
    assert len(asked) == 6
    assert set(asked) <= rules


def test_pods_have_no_more_rights_than_they_need() -> None:
    for name, pod, container in containers():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert not pod["automountServiceAccountToken"], name
        assert container["securityContext"]["readOnlyRootFilesystem"], name
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
        assert container["resources"]["limits"]["memory"], name
