"""The Helm chart, rendered: Kubernetes accepts the result, and it is what the service needs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from receiver.settings import load
from receiver.store.redis.address import read_address
from tests.deploy.tools import DEPLOY, run, tool
from tests.kit.accounts import merchant_key_pem
from tests.store.makers import SECRET

CHART = DEPLOY / "helm" / "amazon-pay-refund-receiver"
EXAMPLE = CHART / "ci" / "values.yaml"
STOP = 10
"""Seconds in which the service stops."""


@cache
def rendered(*more: str) -> tuple[dict[str, Any], ...]:
    """All objects of the example; `more` are arguments."""
    text = run(tool("helm"), "template", "apr", CHART, "--namespace", "pay", "--values", EXAMPLE, *more)
    return tuple(each for each in yaml.safe_load_all(text) if each)


def objects(kind: str, *more: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind, by the end of their names."""
    found = [each for each in rendered(*more) if each["kind"] == kind]
    return {each["metadata"]["name"].removeprefix("apr-amazon-pay-refund-receiver").lstrip("-"): each for each in found}


def pods() -> dict[str, dict[str, Any]]:
    """The pod templates' specs."""
    return {name: each["spec"]["template"]["spec"] for name, each in objects("Deployment").items()}


def test_the_alerts_are_those_of_prometheus() -> None:
    """Helm reads only what is in the chart's own folder, so it has a copy."""
    assert (CHART / "files" / "alerts.yml").read_bytes() == (DEPLOY / "prometheus" / "alerts.yml").read_bytes()


def test_the_schema_knows_every_value() -> None:
    """And every value of the schema has a default that can be read."""

    def same(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
        assert schema.get("additionalProperties") is False, path
        known = set(schema["properties"]) - {"global"}
        assert known == set(values), path
        for name in known:
            if "properties" in schema["properties"][name]:
                same(schema["properties"][name], values[name], f"{path}.{name}")

    same(
        json.loads((CHART / "values.schema.json").read_text()), yaml.safe_load((CHART / "values.yaml").read_text()), ""
    )


def test_helm_lints_it() -> None:
    """Strictly: a warning is an error."""
    run(tool("helm"), "lint", "--strict", CHART, "--values", EXAMPLE)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("redis.url=redis://user:hush@host:6379", "redis.url"),
        ("replicas=3", "(?i)additional property|additional properties"),
        ("serve.replicas=many", "serve.replicas"),
        ("adminPort=8000", "adminPort"),
        ("redis.url=", "the address of Redis or Valkey"),
        ("config=", "the text of receiver.toml"),
        ("ingress.host=", "the name that Seller Central will be given"),
    ],
)
def test_wrong_values_are_refused(setting: str, says: str) -> None:
    """With a message about what is wrong; Helm's wording varies."""
    with pytest.raises(AssertionError, match=says):
        run(tool("helm"), "template", "apr", CHART, "--values", EXAMPLE, "--set", setting)


@pytest.mark.parametrize("version", ["1.25", "1.31", "1.37"])
def test_kubernetes_takes_every_object(version: str) -> None:
    """By the schemas of Kubernetes, unknown fields refused. The operator's two kinds are not among them."""
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    looked_at = 0
    for each in rendered():
        if not each["apiVersion"].startswith("monitoring.coreos.com"):
            looked_at += 1
            validate.validate(each, version, strict=True)
    assert looked_at >= 11


@pytest.mark.parametrize("name", ["serve", "work"])
def test_every_pod_is_locked_in(name: str) -> None:
    """What the policy "restricted" of the pod security standards asks for, and a root that cannot be written."""
    pod = pods()[name]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/tmp"]
    assert objects("ServiceAccount")[""]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(("name", "args"), [("serve", ["serve", "--no-worker"]), ("work", ["serve"])])
def test_probes_ask_what_the_service_answers_and_a_stop_is_orderly(name: str, args: list[str]) -> None:
    """Both serve HTTP; the grace holds the wait before the stop and the stop itself."""
    pod = pods()[name]
    (container,) = pod["containers"]
    assert container["args"] == args
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert container["readinessProbe"]["timeoutSeconds"] > 2, "a check of /readyz may take two seconds"
    _, wait = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] > int(wait) + STOP


@pytest.mark.parametrize("name", ["serve", "work"])
def test_the_service_accepts_the_settings_that_a_pod_gets(name: str, tmp_path: Path) -> None:
    """The ConfigMap's text and the pod's environment, with the secrets where they are mounted."""
    (container,) = pods()[name]["containers"]
    secrets = {"/run/secrets/receiver/amazon-pay.pem": merchant_key_pem().decode()}
    secrets |= {"/run/secrets/receiver/finance.secret": SECRET, "/run/secrets/redis/password": "hush"}
    text = objects("ConfigMap")[""]["data"]["receiver.toml"]
    environ = {each["name"]: each["value"] for each in container["env"]}
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    for path, secret in secrets.items():
        assert str(Path(path).parent) in mounts
        place = tmp_path / Path(path).name
        place.write_text(secret)
        text = text.replace(path, str(place))
        environ = {key: value.replace(path, str(place)) for key, value in environ.items()}
    assert environ.pop("RECEIVER_CONFIG") == "/etc/receiver/receiver.toml"
    (tmp_path / "receiver.toml").write_text(text)
    settings = load(tmp_path / "receiver.toml", environ)
    assert settings.redis.address == read_address("rediss://receiver:hush@valkey.data.svc:6379/0")
    assert settings.http.port == container["ports"][0]["containerPort"]
    assert settings.http.shutdown_timeout.total_seconds() + 2 <= STOP
    assert [str(network) for network in settings.http.trusted_proxies] == ["10.42.7.10/32", "10.42.7.11/32"]


def test_strangers_reach_notifications_alone() -> None:
    """The Ingress has one path; workers admit only Prometheus; no other pod is admitted."""
    (rule,) = objects("Ingress")[""]["spec"]["rules"]
    assert [path["path"] for path in rule["http"]["paths"]] == ["/ipn"]
    backend = rule["http"]["paths"][0]["backend"]["service"]["name"]
    service = objects("Service")[""]
    assert service["metadata"]["name"] == backend
    assert service["spec"]["selector"]["app.kubernetes.io/component"] == "serve"
    policies = objects("NetworkPolicy")
    (everybody,) = policies[""]["spec"]["ingress"]
    assert str(everybody["from"]).count("monitoring") == 1
    assert "ingress-nginx" in str(policies["serve"]["spec"]["ingress"])
    assert policies["serve"]["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "serve"


def test_with_an_admin_port_the_ingress_controller_cannot_reach_the_api() -> None:
    """The pods, the Services and the policies agree about which port is whose."""
    more = ("--set", "adminPort=8001")
    for deployment in objects("Deployment", *more).values():
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert {"name": "RECEIVER_HTTP__ADMIN_PORT", "value": "8001"} in container["env"]
        assert {each["name"]: each["containerPort"] for each in container["ports"]} == {"http": 8000, "admin": 8001}
    services = {name: each["spec"]["ports"] for name, each in objects("Service", *more).items()}
    assert [(each["name"], each["targetPort"]) for each in services[""]] == [("http", "http"), ("admin", "admin")]
    assert [(each["port"], each["targetPort"]) for each in services["metrics"]] == [(8001, "admin")]
    policies = {name: each["spec"]["ingress"] for name, each in objects("NetworkPolicy", *more).items()}
    assert [(str(each["from"]), each["ports"][0]["port"]) for each in policies["serve"]] == [
        (str([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}]), 8000),
        (str([{"podSelector": {"matchLabels": {"app": "orders"}}}]), 8001),
    ]
    assert [each["ports"][0]["port"] for each in policies[""]] == [8001]
    assert not [name for name in services if "admin" in str(objects("Service")[name])]


def test_selectors_select() -> None:
    """Deployments, budgets, the autoscaler, Services and the monitor mean the pods that there are."""
    labels = {name: each["spec"]["template"]["metadata"]["labels"] for name, each in objects("Deployment").items()}
    for kind in ("Deployment", "PodDisruptionBudget"):
        for name, each in objects(kind).items():
            assert each["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
    metrics = objects("Service")["metrics"]
    assert all(metrics["spec"]["selector"].items() <= each.items() for each in labels.values())
    monitor = objects("ServiceMonitor")[""]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= metrics["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == metrics["spec"]["ports"][0]["name"]
    assert metrics["metadata"]["labels"][monitor["jobLabel"]] == "amazon-pay-refund-receiver"
    target = objects("HorizontalPodAutoscaler")["serve"]["spec"]["scaleTargetRef"]["name"]
    assert target == objects("Deployment")["serve"]["metadata"]["name"]
    assert "replicas" not in objects("Deployment")["serve"]["spec"]


def test_the_rules_arrive_as_they_are() -> None:
    """Nothing in them is taken for a template of Helm's."""
    assert objects("PrometheusRule")[""]["spec"] == yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
