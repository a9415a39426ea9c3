"""Alerts and dashboard: every query is sound, and about metrics and labels that the service really has."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from receiver.runtime.gauges import GAUGES, SIZE_GAUGES
from receiver.runtime.metrics import Metrics
from tests.commands.kit import Server
from tests.deploy.tools import DEPLOY, run, tool
from tests.kit.processes import PROJECT

ALERTS = DEPLOY / "prometheus" / "alerts.yml"
CASES = DEPLOY / "prometheus" / "alerts_test.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
EVERYWHERE = {"job", "instance", "le"}
"""Labels that Prometheus adds, and the one of histograms."""


@pytest.fixture(scope="module")
def page(valkey_url: str) -> str:
    """A live /metrics, after one notification that is no notification."""
    server = Server(valkey_url)
    try:
        request = urllib.request.Request(f"{server.url}/ipn", b"{}", {"Content-Type": "text/plain"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(request)
        with urllib.request.urlopen(f"{server.url}/metrics") as answer:
            return str(answer.read().decode())
    finally:
        server.close()


def samples(page: str) -> set[str]:
    """Every metric that the page announces, by the names that its samples have."""
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        f"{family.name}{ending}"
        for family in text_string_to_metric_families(page)
        for ending in endings.get(family.type, ())
    }


def labels() -> dict[str, set[str]]:
    """The labels of each metric, by its name without an ending."""
    collectors = Metrics().registry._collector_to_names
    counted = {each._name: set(each._labelnames) for each in collectors if isinstance(each, MetricWrapperBase)}
    return counted | {f"receiver_{name}": set(labels) for name, (_, *labels) in GAUGES.items()}


def used(expr: str) -> set[str]:
    """The metrics of the service that a query names."""
    return set(re.findall(r"\b(receiver_[a-z_]+)", expr))


def test_every_metric_in_use_exists_on_a_live_page(page: str) -> None:
    """A misspelt metric is an alert that never fires."""
    there = samples(page)
    assert len(there) > 20
    for name, expr in [*((rule.get("alert") or rule["record"], rule["expr"]) for rule in RULES), *QUERIES]:
        assert used(expr) <= there, name


def test_every_label_in_use_exists() -> None:
    """In each selector and each `by`; for a recording rule, only the labels that it keeps."""
    known = labels()
    kept = {
        rule["record"]: set(re.split(r",\s*", re.findall(r"sum by \(([^)]*)\)", rule["expr"])[0]))
        for rule in RULES
        if "record" in rule
    }
    looked_at = 0
    for expr in [*(rule["expr"] for rule in RULES), *(expr for _, expr in QUERIES)]:
        for metric, selector in re.findall(r"\b(receiver[:_][a-z0-9_:]+)\{([^}]*)\}", expr):
            base = re.sub(r"_(total|bucket|sum|count)$", "", metric)
            allowed = kept.get(metric) or known[base] | EVERYWHERE
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', "", selector)):
                looked_at += 1
                assert label in allowed, (metric, label)
        metrics = re.findall(r"\b(receiver[:_][a-z0-9_:]+)", expr)
        bases = {re.sub(r"_(total|bucket|sum|count)$", "", metric) for metric in metrics}
        there = EVERYWHERE.union(*(kept.get(base) or known[base] for base in bases))
        for listed in re.findall(r"\b(?:by|on) \(([^)]*)\)", expr):
            assert set(re.split(r",\s*", listed)) <= there, expr
    assert looked_at > 30


def test_every_alert_tells_what_to_do_and_has_a_case() -> None:
    """Summary, description and runbook; and a test in which it fires and one in which it does not."""
    alerts = [rule for rule in RULES if "alert" in rule]
    assert len(alerts) > 15
    fires: dict[str, set[bool]] = {}
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        for each in case.get("alert_rule_test", []):
            fires.setdefault(each["alertname"], set()).add(bool(each.get("exp_alerts")))
    for rule in alerts:
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert fires.get(rule["alert"]) == {True, False}, rule["alert"]


def test_promtool_accepts_the_alerts_and_their_cases() -> None:
    """`promtool check rules` and `promtool test rules`, as operators run them."""
    promtool = tool("promtool")
    assert "SUCCESS" in run(promtool, "check", "rules", ALERTS)
    assert "SUCCESS" in run(promtool, "test", "rules", CASES)
    run(promtool, "check", "config", DEPLOY / "prometheus" / "prometheus.yml")


def test_promtool_accepts_a_live_page(page: str) -> None:
    """`promtool check metrics`: names, units and help texts are as Prometheus wants them."""
    run(tool("promtool"), "check", "metrics", text=page)


def test_promtool_accepts_every_metric() -> None:
    """Also those that a fresh service has no value of: `promtool` looks at samples alone."""
    metrics = Metrics()
    for each in list(metrics.registry._collector_to_names):
        if isinstance(each, MetricWrapperBase) and each._labelnames:
            each.labels(*("x" for _ in each._labelnames))
    parts = {kind: kind if len(GAUGES[name]) == 2 else f"{kind}:x" for kind, name in SIZE_GAUGES.items()}
    metrics.gauges({"us": dict.fromkeys(parts.values(), 1.0)}, {"SimpleNotificationService-1.pem": 1.0})
    text = metrics.render().decode()
    families = list(text_string_to_metric_families(text))
    assert [family.name for family in families if not family.samples] == []
    assert {f"receiver_{name}" for name in GAUGES} <= {family.name for family in families}
    run(tool("promtool"), "check", "metrics", text=text)


def test_promtool_parses_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """With Grafana's variables filled in, as recording rules."""
    promtool = tool("promtool")
    filled = [
        re.sub(r"\$__range", "6h", re.sub(r"\$__rate_interval", "5m", expr)).replace("$job", ".+")
        for _, expr in QUERIES
    ]
    assert not [expr for expr in filled if "$" in expr]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(filled)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run(promtool, "check", "rules", path)


def test_the_dashboard_is_whole() -> None:
    """Panels have different ids, do not overlap, and query the chosen data source."""
    every: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for panel in every:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "job"}


def test_the_alertmanager_that_mails() -> None:
    """amtool takes it, and it routes by names and annotations that the service's alerts have."""
    path = DEPLOY / "prometheus" / "alertmanager.yml"
    text = path.read_text()
    words = (PROJECT / "receiver" / "outbox" / "formats" / "alertmanager.py").read_text()
    used = set(re.findall(r"\.(?:Annotations|Labels|CommonLabels)\.(\w+)", text))
    assert used >= {"summary", "advice", "refund_id"}
    assert [name for name in used if f'"{name}"' not in words] == []
    assert "AmazonPay(Refund|Balance).*" in text
    run(tool("amtool"), "check-config", path)
