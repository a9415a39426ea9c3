"""Subscribers: what is configured, what is stored, and which events each wants."""

from __future__ import annotations

import json
import re
import tomllib
from io import StringIO
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from receiver.errors import BadRequest, Malformed
from receiver.ledger.lifecycle import EventType
from receiver.outbox.formats.registry import FORMATS, wants
from receiver.outbox.subscribers.reading import FIELDS, read_subscriber, subscriber_problems
from receiver.outbox.subscribers.schema import public_json
from receiver.outbox.subscribers.secrets import Secret, format_secret
from receiver.outbox.subscribers.subscriber import Subscriber, carry_over, decode, encode, pause, resume
from receiver.outbox.subscribers.url import UrlPolicy
from tests.kit.wire import as_json
from tests.outbox.examples import NOW, OTHER_SECRET, SECRET, a_subscriber, an_event

RULES = UrlPolicy()
GOOD: dict[str, Any] = {"name": "finance", "url": "https://finance.example/hooks", "secret": SECRET}


def problems(**changes: Any) -> list[str]:
    return subscriber_problems({**GOOD, **changes}, RULES)


def test_three_fields_are_enough() -> None:
    """Name, address and secret; the default is declines of every reason."""
    table = tomllib.loads(f'name = "finance"\nurl = "https://finance.example/hooks"\nsecret = "{SECRET}"')
    assert read_subscriber(table, RULES, origin="config", now=NOW) == Subscriber(
        name="finance",
        url="https://finance.example/hooks",
        secrets=(Secret(SECRET),),
        types=("amazonpay.refund.declined",),
        reasons=(),
        format="cloudevents",
        origin="config",
        created_at=NOW,
    )


def test_everything_can_be_said() -> None:
    """Several secrets, types and reasons; what is said twice counts once."""
    data = {
        "name": "a-1_b",
        "url": "http://10.0.0.7:8080/a?b=c",
        "secrets": [SECRET, OTHER_SECRET, SECRET],
        "types": ["amazonpay.refund.stuck", "amazonpay.refund.conflict", "amazonpay.refund.stuck"],
        "reasons": ["AmazonRejected", "AmazonRejected"],
        "format": "cloudevents",
    }
    read = read_subscriber(data, UrlPolicy(allow_http=True), origin="api", now=NOW)
    assert read.secrets == (Secret(SECRET), Secret(OTHER_SECRET))
    assert read.types == ("amazonpay.refund.stuck", "amazonpay.refund.conflict")
    assert read.reasons == ("AmazonRejected",)
    assert (read.url, read.origin) == ("http://10.0.0.7:8080/a?b=c", "api")


def test_a_star_means_every_type_also_those_to_come() -> None:
    """It is kept as a star."""
    data = {**GOOD, "types": ["amazonpay.refund.stuck", "*"]}
    assert read_subscriber(data, RULES, origin="api", now=NOW).types == ("*",)


def test_every_problem_is_named_at_once_with_its_field_and_the_fix() -> None:
    """One error for a table in which everything is wrong."""
    data = {
        "name": "Finance!",
        "url": "ftp://user:hunter2@/x#y",
        "secret": "hunter2",
        "types": ["amazonpay.refund.lost"],
        "reasons": "AmazonRejected",
        "format": "xml",
        "secrte": "x",
    }
    with pytest.raises(BadRequest) as caught:
        read_subscriber(data, RULES, origin="api", now=NOW)
    assert caught.value.reason == "bad_subscriber"
    assert caught.value.detail.split("\n") == [
        "secrte: is not a field of a subscriber; did you mean secret? Known are name, url, secret, secrets, types, "
        "reasons, min_amount, rate, concurrency, format, backfill, routing_key, authorization, public_url, "
        "seller_central",
        "name: is not a plain word; use 1 to 64 of a-z 0-9 _ -, a letter or digit first",
        "url: must begin with https://; write for example https://finance.example/hooks",
        "url: must not hold a user name or password; deliveries are authenticated by their signature",
        "url: must not have a fragment; remove the # and everything after it",
        "url: has no host; write for example https://finance.example/hooks",
        "secret: does not begin with whsec_; a secret is whsec_ followed by the base64 of 24 to 64 random bytes",
        "types: 'amazonpay.refund.lost' is not an event type; known are amazonpay.refund.initiated, "
        "amazonpay.refund.refunded, amazonpay.refund.declined, amazonpay.refund.stuck, "
        "amazonpay.refund.conflict, amazonpay.refund.resolved, amazonpay.refund.reopened, * for all of them, "
        "and amazonpay.balance.suspected, amazonpay.balance.resolved, amazonpay.dispute.action_required, "
        "amazonpay.refund.mismatch, receiver.subscriber.paused, receiver.subscriber.failing, "
        "receiver.delivery.dead, receiver.*",
        "reasons: is not a list of 1 to 32 reason codes such as AmazonRejected; leave it out for all",
        "format: 'xml' is not a format; known are cloudevents, slack, teams, pagerduty, alertmanager",
    ]
    assert "hunter2" not in caught.value.detail


def test_words_are_known_in_any_letter_case() -> None:
    """Types also by their short names. The stored spelling is that of the events."""
    wanted = {"types": ["declined", "Refund.Stuck"], "reasons": ["amazonrejected"], "min_amount": "5 usd"}
    found = read_subscriber({**GOOD, "format": "CloudEvents", **wanted}, RULES, origin="config", now=NOW)
    assert found.types == ("amazonpay.refund.declined", "amazonpay.refund.stuck")
    assert (found.reasons, str(found.min_amount[0]), found.format) == (("AmazonRejected",), "5.00 USD", "cloudevents")


def test_each_format_shows_what_its_address_looks_like() -> None:
    (problem,) = subscriber_problems({"name": "a", "format": "Slack"}, RULES)
    assert problem.startswith("url: is missing; write for example https://hooks.slack.com/services/")


@pytest.mark.parametrize("name", [None, "", "-a", "A", "a b", "a" * 65, "ä", "a\n", 7, ["a"]])
def test_a_name_is_a_plain_word(name: object) -> None:
    """It stands in keys and paths."""
    (problem,) = problems(name=name)
    assert problem.startswith("name: is ")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"secret": None}, "secret: is missing; a secret is whsec_"),
        ({"secret": 7}, "secret: is not a text"),
        ({"secret": format_secret(b"x" * 16)}, "secret: is too short: it holds 16 bytes"),
        ({"secrets": [SECRET]}, "secrets: is set as well as secret"),
        ({"types": []}, "types: is not a list of event types; known are amazonpay.refund.initiated"),
        ({"types": "*"}, "types: is not a list"),
        ({"types": [None]}, "types: a NoneType is not an event type"),
        ({"types": ["amazonpay.refund.*"]}, "types: 'amazonpay.refund.*' is not an event type"),
        ({"types": [SECRET]}, "types: a secret is not an event type"),
        ({"reasons": []}, "reasons: is not a list of 1 to 32"),
        ({"reasons": ["x"] * 33}, "reasons: is not a list of 1 to 32"),
        ({"reasons": ["a b"]}, "reasons: 'a b' is not a reason code"),
        ({"reasons": ["x" * 99]}, f"reasons: '{'x' * 50}'… is not a reason code"),
        ({"reasons": ["AmazonRejectd"]}, "reasons: 'AmazonRejectd' is not a reason code; known are AmazonRejected, "),
        ({"format": "fax"}, "format: 'fax' is not a format; known are cloudevents, slack, "),
        ({"format": SECRET}, "format: a secret is not a format"),
        ({"format": {}}, "format: a dict is not a format"),
        ({SECRET + "!": 1}, "a secret: is not a field"),
    ],
)
def test_one_problem_is_one_sentence(changes: dict[str, Any], problem: str) -> None:
    """Each names the field, what is wrong and the fix, and repeats no secret."""
    (found,) = problems(**changes)
    assert found.startswith(problem)
    assert SECRET not in found


def test_each_of_several_secrets_is_judged() -> None:
    """The place in the list is named."""
    data = {"name": "a", "url": "https://a.example/", "secrets": [SECRET, "x", None]}
    first, second = subscriber_problems(data, RULES)
    assert first.startswith("secrets[1]: does not begin with whsec_")
    assert second.startswith("secrets[2]: is missing")
    for secrets in ([], [SECRET] * 6, SECRET, None):
        (found,) = subscriber_problems({**data, "secrets": secrets}, RULES)
        assert found.startswith("secrets: is not a list of 1 to 5 secrets")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
urls = st.text(st.sampled_from("https://a.b:@[]%?#\\ 0x7f1\n\x00é_-")).map(lambda text: "https://" + text)


@given(
    json_values
    | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, json_values))
    | st.builds(
        lambda good, name, odd: {**good, "format": name, **odd},
        st.just({"name": "a", "url": "https://a.example/"}),
        st.sampled_from(list(FORMATS)),
        st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, json_values)),
    )
)
def test_any_value_is_a_subscriber_or_a_list_of_problems(data: object) -> None:
    """Reading is total, and agrees with the list of problems."""
    found = subscriber_problems(data, RULES)
    if found:
        with pytest.raises(BadRequest):
            read_subscriber(data, RULES, origin="api", now=NOW)
    else:
        read_subscriber(data, RULES, origin="api", now=NOW)


@given(urls | st.text(st.characters()))
def test_any_text_is_an_address_or_a_list_of_problems(url: str) -> None:
    """No odd address escapes as another error, and what passes is plain ASCII with a host."""
    found = problems(url=url)
    if not found:
        assert url.isascii()
        assert url.isprintable()
        host = re.split("[/?#]", url.removeprefix("https://"))[0]
        assert host
        assert "@" not in host


def test_types_select_events() -> None:
    """A subscriber to declines gets them and the end of their cases, and nothing else; a star gets everything."""
    declines = a_subscriber(types=("amazonpay.refund.declined",))
    for event_type in EventType:
        assert wants(declines, an_event(event_type)) is (
            event_type in (EventType.DECLINED, EventType.RESOLVED, EventType.REOPENED)
        )
        assert wants(a_subscriber(), an_event(event_type))


def test_reasons_select_among_events_that_carry_one() -> None:
    """Other reasons are left out; an event without a reason passes."""
    picky = a_subscriber(reasons=("AmazonRejected", "Other"))
    assert wants(picky, an_event(reason_code="AmazonRejected"))
    assert not wants(picky, an_event(reason_code="ProcessingFailure"))
    assert wants(picky, an_event(EventType.STUCK, state="RefundInitiated", reason_code=""))
    assert wants(a_subscriber(), an_event(reason_code="ProcessingFailure"))


def test_the_end_of_a_chain_of_retries_reaches_the_subscribers_of_each_reason() -> None:
    """A reissue may have been declined for the subscriber's reason, and its incident be open."""
    picky = a_subscriber(reasons=("AmazonRejected",))
    assert not wants(picky, an_event(EventType.RESOLVED, reason_code="ProcessingFailure"))
    assert wants(picky, an_event(EventType.RESOLVED, reason_code="ProcessingFailure", retried_by="R2"))
    assert not wants(picky, an_event(EventType.REOPENED, reason_code="ProcessingFailure", retried_by="R2"))


def test_a_paused_subscriber_is_still_owed_events() -> None:
    """They wait for it; none is dropped."""
    assert wants(pause(a_subscriber(), "gone", NOW), an_event())


def test_pauses_are_summed_up() -> None:
    """Two pauses of 5 and 7 s; pausing twice keeps the first reason and time; a clock that went back adds nothing."""
    paused = pause(a_subscriber(), "gone", 1_000)
    assert pause(paused, "operator", 2_000) == paused
    assert public_json(paused).paused_reason == "gone"
    once = resume(paused, 6_000)
    assert (once.paused, once.paused_reason, once.paused_at, once.paused_ms) == (False, "", 0, 5_000)
    assert resume(once, 9_000) == once
    assert resume(pause(once, "operator", 10_000), 17_000).paused_ms == 12_000
    assert resume(pause(once, "operator", 10_000), 9_000).paused_ms == 5_000


def test_a_restart_does_not_wake_a_paused_subscriber_unless_it_moved() -> None:
    """Address and filters come from the configuration, the state since then from the store."""
    configured = a_subscriber(created_at=NOW + 60_000, reasons=("AmazonRejected",))
    stored = pause(a_subscriber(paused_ms=10), "gone", NOW + 1_000)
    assert carry_over(configured, None) == configured
    kept = carry_over(configured, stored)
    assert kept == pause(a_subscriber(reasons=("AmazonRejected",), paused_ms=10), "gone", NOW + 1_000)
    assert carry_over(kept, kept) == kept
    moved = carry_over(msgspec.structs.replace(configured, url="https://new.example/"), stored)
    assert (moved.paused, moved.paused_ms, moved.created_at) == (False, 59_010, NOW)


def test_no_secret_is_seen_by_people() -> None:
    """Not in a repr, not in a format, not printed by rich, not in the public JSON."""
    subscriber = a_subscriber(secrets=(Secret(SECRET, expires_at=NOW), Secret(OTHER_SECRET)))
    printed = StringIO()
    Console(file=printed, width=400).print(subscriber, subscriber.secrets[0])
    shown = [repr(subscriber), f"{subscriber}", printed.getvalue(), repr(as_json(public_json(subscriber)))]
    for text in shown:
        assert "finance" in text
        for secret in (SECRET, OTHER_SECRET):
            assert secret.removeprefix("whsec_")[:8] not in text


def test_what_people_see_of_a_subscriber() -> None:
    """The whole public JSON; secrets can be distinguished by the beginning of their SHA-256."""
    subscriber = a_subscriber(secrets=(Secret(SECRET, expires_at=NOW), Secret(OTHER_SECRET)))
    assert as_json(public_json(subscriber)) == {
        "name": "finance",
        "url": "https://finance.example/hooks",
        "types": ["*"],
        "reasons": None,
        "minAmount": None,
        "format": "cloudevents",
        "credential": None,
        "publicUrl": None,
        "rate": None,
        "concurrency": None,
        "backfill": True,
        "paused": False,
        "pausedReason": None,
        "pausedAt": None,
        "origin": "config",
        "undeclaredAt": None,
        "createdAt": "2019-07-14T16:00:00.250Z",
        "secrets": [
            {"fingerprint": "96ad2ccd", "expiresAt": "2019-07-14T16:00:00.250Z"},
            {"fingerprint": "5036e143", "expiresAt": None},
        ],
    }


def test_the_stored_form_is_read_back_whole() -> None:
    """Secrets included; the same subscriber always has the same bytes, by which the store compares."""
    subscriber = pause(a_subscriber(secrets=(Secret(SECRET, 5), Secret(OTHER_SECRET)), reasons=("A",)), "gone", NOW)
    assert decode(encode(subscriber)) == subscriber
    assert encode(decode(encode(subscriber))) == encode(subscriber)
    assert SECRET.encode() in encode(subscriber)


def test_fields_and_types_of_a_later_version_are_passed_over() -> None:
    """A rollback finds its subscribers again."""
    stored = {**json.loads(encode(a_subscriber())), "new": {"deep": [1]}, "types": ["amazonpay.refund.new"]}
    assert decode(json.dumps(stored).encode()) == a_subscriber(types=("amazonpay.refund.new",))


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_the_stored_form_fails_in_one_way_only(stored: bytes) -> None:
    """None of these is a subscriber; all of them are `Malformed`."""
    with pytest.raises(Malformed):
        decode(stored)


def test_a_stored_secret_that_cannot_sign_is_unreadable() -> None:
    """Found when the subscriber is read, not when a decline is to be sent; its text is not repeated."""
    with pytest.raises(Malformed) as caught:
        decode(encode(a_subscriber(secrets=(Secret("whsec_hunter2"),))))
    assert "hunter2" not in str(caught.value)


def test_endless_nesting_is_unreadable() -> None:
    """It does not escape as a `RecursionError`."""
    with pytest.raises(Malformed):
        decode(b'{"new":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
