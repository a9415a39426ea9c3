"""Changes of a subscriber's address: which credentials have to be given with it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from receiver.errors import BadRequest
from receiver.outbox.subscribers.changes import changed
from receiver.outbox.subscribers.reading import read_subscriber
from receiver.outbox.subscribers.secrets import Secret
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.outbox.subscribers.url import UrlPolicy, place_of

SECRETS = ["whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in range(3)]
RULES = UrlPolicy(allow_http=True)
KEYS = ["R" * 32, "S" * 32]
BASES: dict[str, dict[str, Any]] = {
    "cloudevents": {"url": "https://one.example/hooks", "secrets": SECRETS[:2]},
    "slack": {"url": "https://one.example/T0/B0/hunter2"},
    "pagerduty": {"url": "https://one.example/v2/enqueue", "routing_key": KEYS[0]},
    "alertmanager": {"url": "https://one.example", "authorization": "Bearer one"},
}


def made(name: str, **more: Any) -> Subscriber:
    fields = {"name": "finance", "format": name, **BASES[name], **more}
    return read_subscriber(fields, RULES, origin="api", now=1)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.example/x", "https://A.Example:443/y?z", True),
        ("http://a.example", "http://a.example:80/", True),
        ("https://a.example/", "http://a.example/", False),
        ("https://a.example/", "http://a.example:443/", False),
        ("https://a.example/", "https://a.example:8443/", False),
        ("https://a.example/", "https://b.example/", False),
        ("https://a.example/", "https://a.example.b.example/", False),
        ("https://[2001:db8::1]/", "https://[2001:db8::1]:443/x", True),
        ("https://a.example:x/", "https://b.example:x/", False),
    ],
)
def test_a_place_is_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    """As a browser's origin is; the port of the scheme may be left out."""
    assert (place_of(one) == place_of(other)) is same


@pytest.mark.parametrize(
    ("name", "needed"),
    [("cloudevents", "secret"), ("pagerduty", "routing_key"), ("alertmanager", "authorization")],
)
@pytest.mark.parametrize("url", ["https://two.example/", "http://one.example/", "https://one.example:8443/"])
def test_a_credential_does_not_follow_to_another_place(name: str, needed: str, url: str) -> None:
    """The error names it, whatever else is changed, and shows none of its characters."""
    before = made(name)
    for more in ({}, {"rate": 5}):
        with pytest.raises(BadRequest) as caught:
            changed(before, {"url": url, **more}, RULES)
        assert caught.value.reason == "credential_needed"
        assert f"Give `{needed}` in the same change" in caught.value.detail
        for secret in (*SECRETS, *KEYS, "Bearer one"):
            assert secret not in caught.value.detail


@pytest.mark.parametrize("name", list(BASES))
def test_another_path_needs_nothing(name: str) -> None:
    """The signing secret and the sent credential stay."""
    before = made(name)
    after = changed(before, {"url": "https://one.example:443/other?path"}, RULES)
    assert after.url == "https://one.example:443/other?path"
    assert (after.secrets, after.credential) == (before.secrets, before.credential)


def test_a_given_secret_replaces_all_of_before() -> None:
    """The new place gets nothing that is signed with a secret that the old one knows."""
    after = changed(made("cloudevents"), {"url": "https://two.example/", "secret": SECRETS[2]}, RULES)
    assert (after.url, after.secrets) == ("https://two.example/", (Secret(SECRETS[2]),))
    again = changed(after, {"url": "https://two.example/", "secret": SECRETS[2]}, RULES)
    assert again == after


def test_given_credentials_of_other_formats() -> None:
    """They are sent from then on; an Alertmanager's can be removed; Slack's is the address itself."""
    paged = changed(made("pagerduty"), {"url": "https://two.example/", "routing_key": KEYS[1]}, RULES)
    assert paged.credential == Secret(KEYS[1])
    wanted = {"url": "https://two.example/", "authorization": "Bearer two"}
    assert changed(made("alertmanager"), wanted, RULES).credential == Secret("Bearer two")
    assert changed(made("alertmanager"), {**wanted, "authorization": None}, RULES).credential is None
    unguarded = made("alertmanager", authorization=None)
    assert changed(unguarded, {"url": "https://two.example/"}, RULES).url == "https://two.example/"
    chat = changed(made("slack"), {"url": "https://two.example/T1/B1/x"}, RULES)
    assert chat.url == "https://two.example/T1/B1/x"


def test_back_to_pagerdutys_own_address_is_another_place() -> None:
    """A default is an address like any other."""
    with pytest.raises(BadRequest) as caught:
        changed(made("pagerduty"), {"url": None}, RULES)
    assert caught.value.reason == "credential_needed"
    after = changed(made("pagerduty"), {"url": None, "routing_key": KEYS[0]}, RULES)
    assert after.url == "https://events.pagerduty.com/v2/enqueue"


@pytest.mark.parametrize(
    ("name", "wanted", "says"),
    [
        ("cloudevents", {"secret": SECRETS[2]}, "secret: cannot be changed; rotate the secret, or give it together"),
        ("cloudevents", {"url": "https://two.example/", "secret": None}, "secret: is missing"),
        ("cloudevents", {"url": "https://two.example/", "secret": "hunter2"}, "secret: "),
        ("cloudevents", {"url": "https://two.example/", "secrets": SECRETS}, "secrets: cannot be changed; rotate"),
        ("slack", {"url": "https://two.example/", "secret": SECRETS[2]}, "secret: is not used by slack"),
        ("pagerduty", {"url": "https://two.example/", "routing_key": None}, "routing_key: is missing"),
    ],
)
def test_what_is_no_credential_of_it_is_refused(name: str, wanted: dict[str, Any], says: str) -> None:
    """As any other field that is wrong."""
    with pytest.raises(BadRequest) as caught:
        changed(made(name), wanted, RULES)
    assert caught.value.reason == "bad_subscriber"
    assert says in caught.value.detail
    assert "hunter2" not in caught.value.detail
