"""What Slack receives: pinned, and judged by the limits of its Block Kit reference and its rules of escaping."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.exchange import Request, Response
from receiver.ledger.lifecycle import EventType
from receiver.ledger.money import Money
from receiver.outbox.events.event import Event
from receiver.outbox.formats.registry import format_spec, render
from receiver.outbox.formats.slack import escaped
from receiver.outbox.retries import SCHEDULE, Delivered, DeliveryAttempts, Gone, Retry, judge
from tests.outbox.examples import NOW, an_event, any_text, events, long_text
from tests.outbox.tellers import HOOK, teller

BODY = (
    '{"text":"Refund declined: 14.00 USD (AmazonRejected), refund S01-5105180-3221187-R022311, account us. Amazon '
    "rejected this refund, possibly because the merchant account has a negative balance. The buyer has not been paid "
    'by it.","blocks":[{"type":"header","text":{"type":"plain_text","text":"Refund declined: 14.00 USD",'
    '"emoji":false}},{"type":"section","text":{"type":"mrkdwn","text":"Amazon rejected this refund, possibly because '
    'the merchant account has a negative balance. The buyer has not been paid by it.","verbatim":true}},'
    '{"type":"section","fields":['
    '{"type":"mrkdwn","text":"*Refund*\\n`S01-5105180-3221187-R022311`","verbatim":true},'
    '{"type":"mrkdwn","text":"*Amount*\\n`14.00 USD`","verbatim":true},'
    '{"type":"mrkdwn","text":"*Reason*\\n`AmazonRejected`","verbatim":true},'
    '{"type":"mrkdwn","text":"*Amazon says*\\n`The refund was rejected.`","verbatim":true},'
    '{"type":"mrkdwn","text":"*Order*\\n`A &amp; B &lt;!channel&gt;`","verbatim":true},'
    '{"type":"mrkdwn","text":"*Charge*\\n`S01-5105180-3221187-C056351`","verbatim":true},'
    '{"type":"mrkdwn","text":"*Account*\\n`us`","verbatim":true},'
    '{"type":"mrkdwn","text":"*Environment*\\n`Sandbox`","verbatim":true},'
    '{"type":"mrkdwn","text":"*Changed*\\n`20190714T155500Z`","verbatim":true}]},'
    '{"type":"section","text":{"type":"mrkdwn","text":"*What to do*\\n1. Look at the balance of the merchant account '
    "in Seller Central; where it is negative, pay Amazon what is owed.\\n2. Once the balance is settled, issue a new "
    "refund for the charge; Amazon never reopens a declined refund.\\n3. Look at the other refunds of the charge: once "
    "its maximum has been refunded, Amazon declines every further one.\\n4. Or compensate the buyer outside Amazon "
    'Pay, for example with store credit, a gift card or a check.","verbatim":true}},'
    '{"type":"context","elements":['
    '{"type":"mrkdwn","text":"<https://refunds.example/refunds/S01-5105180-3221187-R022311?account=us|Refund>",'
    '"verbatim":true},{"type":"mrkdwn","text":"<https://sellers.example|Seller Central>","verbatim":true},'
    '{"type":"mrkdwn","text":"account `us`","verbatim":true},'
    '{"type":"mrkdwn","text":"`evt_a0b1dbf5ddba89abbeed14ef890d0517`","verbatim":true}]}],'
    '"unfurl_links":false,"unfurl_media":false}'
)

OUR_LINK = re.compile(r"<https://(?:refunds|sellers)\.example[!-;=?-{}~]*\|(?:Refund|Seller Central|This service)>")


def units(text: str) -> int:
    """Slack counts as JavaScript does."""
    return len(text.encode("utf-16-le")) // 2


def check_text(given: Any, kind: str, most: int) -> None:
    """A text object ("Text object" of the Block Kit reference); nothing in angle brackets but our own links."""
    assert set(given) <= {"type", "text", "emoji", "verbatim"}
    assert given["type"] == kind
    assert ("emoji" in given) <= (kind == "plain_text")
    assert ("verbatim" in given) <= (kind == "mrkdwn")
    assert 1 <= units(given["text"]) <= most
    check_escaped(given["text"])


def check_escaped(text: str) -> None:
    """`&`, `<` and `>` are escaped everywhere."""
    rest = OUR_LINK.sub("", text)
    assert "<" not in rest
    assert ">" not in rest
    assert not re.search(r"&(?!amp;|lt;|gt;)", rest)


def check_block(block: dict[str, Any]) -> None:
    """The three kinds of blocks that are used, with the limits of each."""
    match block["type"]:
        case "header":
            assert set(block) == {"type", "text"}
            check_text(block["text"], "plain_text", 150)
        case "section":
            assert ("text" in block) != ("fields" in block)
            if "text" in block:
                check_text(block["text"], "mrkdwn", 3000)
            assert 1 <= len(block.get("fields", [1])) <= 10
            for field in block.get("fields", []):
                check_text(field, "mrkdwn", 2000)
        case "context":
            assert set(block) == {"type", "elements"}
            assert 1 <= len(block["elements"]) <= 10
            for element in block["elements"]:
                check_text(element, "mrkdwn", 3000)
        case other:
            pytest.fail(f"no block of type {other}")


def check(request: Request) -> dict[str, Any]:
    """A whole message."""
    message = json.loads(request.body)
    assert set(message) == {"text", "blocks", "unfurl_links", "unfurl_media"}
    assert 1 <= units(message["text"]) <= 4000
    check_escaped(message["text"])
    assert 1 <= len(message["blocks"]) <= 50
    for block in message["blocks"]:
        check_block(block)
    return dict(message)


def test_the_whole_request_of_a_decline() -> None:
    """Byte for byte; nothing signs it, its address is the credential."""
    request = render([an_event(order_reference="A & B <!channel>")], teller("slack"), NOW)
    assert (request.method, request.url) == ("POST", HOOK)
    assert request.headers == {"content-type": "application/json", "user-agent": "amazon-pay-refund-receiver"}
    assert request.body.decode() == BODY
    check(request)


@given(st.lists(events(any_text | long_text), min_size=1, max_size=3))
def test_every_message_keeps_to_the_rules_of_slack(told: list[Event]) -> None:
    """Whatever Amazon sends, and however many."""
    check(render(told, teller("slack"), NOW))


INJECTIONS = (
    "<!channel>",
    "<@U024BE7LH>",
    "<http://evil.example|Seller Central>",
    "&lt;!here&gt;",
    "`<!here>`",
    ">>> x",
)


@given(st.lists(st.sampled_from([*INJECTIONS, "😀", "x", "&", "`", "*b*"]), min_size=1, max_size=300).map("".join))
def test_texts_from_outside_mention_nobody_and_link_nowhere(text: str) -> None:
    """Not even where the text is cut; a backtick inside does not end the code that it stands in."""
    names = ("reason_description", "order_reference", "reason_code", "charge_id", "environment", "soft_descriptor")
    outside: dict[str, Any] = dict.fromkeys(names, text)
    event = an_event(**outside)
    for told in ([event], [event, an_event()]):
        message = check(render(told, teller("slack"), NOW))
        fields = [field["text"] for block in message["blocks"] for field in block.get("fields", [])]
        assert all(re.fullmatch(r"\*[A-Za-z ]+\*\n`[^`]*`", field) for field in fields)


@given(any_text | long_text, st.integers(1, 40))
def test_escaping_is_bounded_and_cuts_no_entity(text: str, limit: int) -> None:
    """The ellipsis included."""
    found = escaped(text, limit)
    assert units(found) <= limit
    check_escaped(found)


def test_many_events_are_one_message_with_sums_and_a_list() -> None:
    """Sums by type, reason and currency, most frequent first; every refund; each advice once; all fifty fit."""
    told = [an_event(refund_id=f"R{n}", order_reference=f"order-{n}") for n in range(47)]
    told += [an_event(refund_id="EU", reason_code="ProcessingFailure", amount=Money(Decimal("3.10"), "EUR"))]
    told += [an_event(refund_id="YEN", amount=Money(Decimal("700"), "JPY"))]
    told += [an_event(EventType.STUCK, refund_id="S", state="RefundInitiated", reason_code="", amount=None)]
    assert len(told) == format_spec(teller("slack").format).most_in_one
    message = check(render(told, teller("slack"), NOW))
    texts = [block["text"]["text"] for block in message["blocks"] if "text" in block]
    assert texts[0] == "50 refund events: 49 declined, 1 stuck"
    assert texts[1].splitlines() == [
        "• 48 declined (AmazonRejected): 658.00 USD, 700 JPY",
        "• 1 declined (ProcessingFailure): 3.10 EUR",
        "• 1 stuck: 1 of unknown amount",
    ]
    assert message["text"].startswith(
        "50 refund events: 49 declined, 1 stuck. 48 declined (AmazonRejected): 658.00 USD"
    )
    everything = "\n".join(texts)
    assert all(f"`R{n}` 14.00 USD, `AmazonRejected`, order `order-{n}`" in everything for n in range(47))
    assert "• stuck: `S` amount unknown" in everything
    assert everything.count("*What to do*") == 3
    assert check(render(told[:5], teller("slack"), NOW))["blocks"][0]["text"]["text"] == "5 refunds declined"
    assert "This service" in json.dumps(message["blocks"][-1])


def test_the_worst_fifty_fit() -> None:
    """Every text at its bound, each character an entity or two units."""
    for text in ("&" * 5000, "😀" * 5000):
        names = ("reason_description", "order_reference", "reason_code", "charge_id", "environment", "state")
        told = [
            an_event(EventType.CONFLICT, refund_id=f"{n:064}", finals=(f"{text}@{n}",), **dict.fromkeys(names, text))
            for n in range(50)
        ]
        check(render(told, teller("slack"), NOW))
        check(render(told[:1], teller("slack"), NOW))


def test_a_burst_is_one_message_at_once_and_summaries_after_it() -> None:
    """A message, then none for ten seconds: Slack allows one a second."""
    assert format_spec(teller("slack").format).window == 10_000


def test_answers_of_slack() -> None:
    """As its page on incoming webhooks lists them."""

    def verdict(status: int, text: str, **headers: str) -> object:
        return judge(Response(status, headers, text.encode()), DeliveryAttempts(), NOW, 0.0)

    assert verdict(200, "ok") == Delivered()
    assert verdict(410, "channel_is_archived") == Gone()
    for status, text in (
        (400, "invalid_blocks"),
        (403, "action_prohibited"),
        (404, "no_service"),
        (500, "rollup_error"),
    ):
        assert verdict(status, text) == Retry(NOW + SCHEDULE[0] // 2)
    throttled = judge(Response(429, {"retry-after": "30"}), DeliveryAttempts(), NOW, 0.0)
    assert throttled == Retry(NOW + 30_000, counts=False)
