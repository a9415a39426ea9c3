"""The fields that only some formats have: what is configured, what is stored, and what is never shown."""

from __future__ import annotations

import json
import pkgutil
from importlib import import_module
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from receiver.outbox import formats
from receiver.outbox.formats.registry import FORMATS, format_spec
from receiver.outbox.subscribers.reading import read_subscriber, subscriber_problems
from receiver.outbox.subscribers.schema import public_json
from receiver.outbox.subscribers.subscriber import Subscriber, carry_over, decode, encode, pause
from receiver.outbox.subscribers.url import UrlPolicy
from tests.kit.wire import as_json
from tests.outbox.examples import NOW, SECRET, a_subscriber
from tests.outbox.tellers import BEARER, FIELDS, HOOK, ROUTING_KEY, RULES, WORKFLOW, teller

DECLINED, STUCK, CONFLICT = (f"amazonpay.refund.{word}" for word in ("declined", "stuck", "conflict"))
DISPUTE = "amazonpay.dispute.action_required"
MISMATCH = "amazonpay.refund.mismatch"


def test_every_format_is_registered() -> None:
    """The registry has the `FORMAT` of each module in the folder, under the module's own name."""
    modules = [import_module(f"{formats.__name__}.{found.name}") for found in pkgutil.iter_modules(formats.__path__)]
    there = {module.__name__.rpartition(".")[2]: module.FORMAT for module in modules if hasattr(module, "FORMAT")}
    assert dict(FORMATS) == there
    assert {name: each.name for name, each in FORMATS.items()} == {name: name for name in there}


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("slack", (DECLINED, STUCK, CONFLICT, DISPUTE, MISMATCH)),
        ("teams", (DECLINED, STUCK, CONFLICT, DISPUTE, MISMATCH)),
        ("pagerduty", (DECLINED, CONFLICT, DISPUTE)),
        ("alertmanager", (DECLINED, STUCK, CONFLICT, DISPUTE, MISMATCH)),
    ],
)
def test_what_is_told_if_nobody_says_otherwise(name: str, types: tuple[str, ...]) -> None:
    """What needs a person."""
    assert teller(name).types == types
    assert teller(name, types=[DECLINED]).types == (DECLINED,)


def test_how_many_and_how_often() -> None:
    """Signed events go out alone and at once."""
    assert (format_spec(a_subscriber().format).most_in_one, format_spec(a_subscriber().format).window) == (1, 0)
    later = a_subscriber(format="carrier-pigeon")
    assert (format_spec(later.format).most_in_one, format_spec(later.format).window) == (1, 0)


def test_links_come_from_the_subscriber_or_from_the_settings() -> None:
    """The signed format has none."""
    assert teller("slack").public_url == "https://refunds.example"
    assert teller("slack", public_url="http://own.example/x").public_url == "http://own.example/x"
    signed = {"name": "a", "url": "https://a.example/", "secret": SECRET}
    assert read_subscriber(signed, RULES, origin="api", now=NOW).public_url == ""


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("slack", {"url": None}, "url: is missing"),
        ("slack", {"secret": SECRET}, "secret: is not used by slack, which is not signed; leave it out"),
        ("slack", {"secrets": [SECRET]}, "secrets: is not used by slack"),
        ("slack", {"routing_key": ROUTING_KEY}, "routing_key: is not used by slack; leave it out"),
        ("slack", {"authorization": BEARER}, "authorization: is not used by slack; leave it out"),
        ("slack", {"public_url": "refunds.example"}, "public_url: must begin with https:// or http:// and a host"),
        ("slack", {"public_url": "https://x.example/|<!here>"}, "public_url: is not an address"),
        ("slack", {"seller_central": "https://u:hunter2@x.example"}, "seller_central: must hold no user"),
        ("slack", {"seller_central": 7}, "seller_central: is not an address"),
        ("slack", {"public_url": "https://[::1"}, "public_url: cannot be split"),
        ("pagerduty", {"routing_key": None}, "routing_key: is missing; PagerDuty shows it"),
        ("pagerduty", {"routing_key": "hunter2"}, "routing_key: is not a routing key; PagerDuty shows it"),
        ("pagerduty", {"types": ["*"]}, "types: pagerduty has incidents; choose among amazonpay.refund.declined, "),
        ("pagerduty", {"types": ["amazonpay.refund.refunded"]}, "types: pagerduty has incidents"),
        ("alertmanager", {"authorization": "hunter2"}, "authorization: is not the value of an Authorization header"),
        (
            "alertmanager",
            {"authorization": "Bearer a\r\nx: y"},
            "authorization: is not the value of an Authorization header",
        ),
        ("alertmanager", {"authorization": "Bearer " + "x" * 5000}, "authorization: is not the value"),
        ("alertmanager", {"types": ["amazonpay.refund.initiated"]}, "types: alertmanager has incidents"),
        ("cloudevents", {"routing_key": ROUTING_KEY}, "routing_key: is not used by cloudevents"),
        ("cloudevents", {"public_url": "https://x.example"}, "public_url: is not used by cloudevents"),
    ],
)
def test_one_problem_is_one_sentence(name: str, changes: dict[str, Any], problem: str) -> None:
    """With the field and the fix, and no secret."""
    signed = {"name": "a", "url": "https://a.example/", "secret": SECRET}
    (found,) = subscriber_problems({**FIELDS.get(name, signed), **changes}, UrlPolicy(allow_http=True))
    assert found.startswith(problem)
    assert not any(text in found for text in ("hunter2", SECRET, ROUTING_KEY, BEARER))


def test_every_problem_is_named_at_once() -> None:
    """For an unknown format, the problems of the default format."""
    found = subscriber_problems({"format": "pagerduty", "secret": "x", "types": ["*"], "authorization": "y"}, RULES)
    assert [problem.split(":")[0] for problem in found] == ["name", "secret", "authorization", "routing_key", "types"]
    found = subscriber_problems({"name": "a", "format": ["slack"]}, RULES)
    assert [problem.split(":")[0] for problem in found] == ["url", "secret", "format"]


@pytest.mark.parametrize(
    ("name", "secret"), [("slack", HOOK), ("teams", WORKFLOW), ("pagerduty", ROUTING_KEY), ("alertmanager", BEARER)]
)
def test_no_credential_is_seen_by_people(name: str, secret: str) -> None:
    """Not in a repr, not printed by rich, not in the public JSON: there is a fingerprint, by which two can be told
    apart. The stored form alone has it."""
    subscriber = teller(name)
    printed = StringIO()
    Console(file=printed, width=400).print(subscriber, subscriber.credential)
    for text in (repr(subscriber), f"{subscriber}", printed.getvalue(), repr(as_json(public_json(subscriber)))):
        assert subscriber.name in text
        assert "hunter2" not in text
        assert secret not in text
    credential = public_json(subscriber).credential
    assert credential is not None
    assert credential.field == FORMATS[name].credential
    assert len(credential.fingerprint) == 8
    assert secret.encode() in encode(subscriber)
    assert decode(encode(subscriber)) == subscriber


def test_of_a_slack_webhook_the_host_is_shown() -> None:
    """The rest of its address is the credential."""
    assert public_json(teller("slack")).url == "https://hooks.slack.com/…"
    assert public_json(teller("teams")).url == "https://prod-1.westus.logic.azure.com:443/…"
    assert public_json(teller("alertmanager")).url == "http://127.0.0.1:9093"


def test_the_stored_form_of_the_first_subscribers_has_not_changed() -> None:
    """The store compares its bytes: one that was written before these formats must still be found."""
    assert set(json.loads(encode(a_subscriber()))) == {
        *("name", "url", "secrets", "types", "reasons", "format", "paused", "paused_reason", "paused_at", "paused_ms"),
        *("origin", "created_at"),
    }


def test_a_new_routing_key_wakes_a_subscriber_that_was_gone() -> None:
    """As a new address does: it is another place."""
    stored = pause(teller("pagerduty"), "gone", NOW)
    assert carry_over(teller("pagerduty"), stored).paused
    moved: Subscriber = carry_over(teller("pagerduty", routing_key="S" * 32), stored)
    assert not moved.paused
