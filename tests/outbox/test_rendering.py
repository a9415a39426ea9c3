"""What a subscriber receives: pinned, and read by the CloudEvents and Standard Webhooks libraries."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from svix.webhooks import Webhook as SvixWebhook
from svix.webhooks import WebhookVerificationError as SvixVerificationError

from receiver.errors import TransportError
from receiver.ledger.lifecycle import EventType
from receiver.ledger.order_reference import MAX_ORDER_REFERENCE
from receiver.ledger.refund import How, Resolution, RetryRefused
from receiver.outbox.events.envelope import AnEvent
from receiver.outbox.events.event import Event
from receiver.outbox.events.kinds import fields_of, read_event
from receiver.outbox.formats.cloudevents import LARGEST_BODY, render_body
from receiver.outbox.formats.registry import FORMATS, render
from receiver.outbox.subscribers.secrets import Secret
from tests.kit.outside import outside
from tests.kit.processes import PROJECT
from tests.outbox.examples import (
    NOW,
    OTHER_SECRET,
    SECRET,
    a_refund,
    a_subscriber,
    an_event,
    any_text,
    events,
    long_text,
)
from tests.outbox.tellers import FIELDS, teller
from tests.outbox.test_balance_event import alarm
from tests.outbox.test_dispute_event import event as dispute
from tests.outbox.test_mismatch_event import event as mismatch

BODY = (
    '{"specversion":"1.0","id":"evt_a0b1dbf5ddba89abbeed14ef890d0517","source":"/amazonpay/us",'
    '"type":"amazonpay.refund.declined","subject":"S01-5105180-3221187-R022311",'
    '"time":"2019-07-14T16:00:00.250Z","datacontenttype":"application/json","data":{'
    '"refundId":"S01-5105180-3221187-R022311","chargeId":"S01-5105180-3221187-C056351",'
    '"refundAmount":{"amount":"14.00","currencyCode":"USD"},"softDescriptor":"Descriptor",'
    '"creationTimestamp":"20190714T155300Z","statusDetails":{"state":"Declined",'
    '"reasonCode":"AmazonRejected","reasonDescription":"The refund was rejected.",'
    '"lastUpdatedTimestamp":"20190714T155500Z"},"releaseEnvironment":"Sandbox","account":"us",'
    '"revision":2,"final":true,"conflict":false,"backfill":false,"orderReference":null,"refundType":null,'
    '"retryable":null,"retryableReasons":[],"asOf":null,"chargeReadAt":null,'
    '"retryOf":null,"retryRoot":null,"retriedBy":null,"retryRefused":null,"resolution":null,'
    '"issuedBy":null,"issuedByUser":null,"unreadFields":[],"firstSeenAt":"2019-07-14T15:53:01.000Z","changedAt":"2019-07-14T16:00:00.250Z",'
    '"source":"notification","advice":{"summary":"Amazon rejected this refund, possibly because the '
    'merchant account has a negative balance. The buyer has not been paid by it.","actions":['
    '{"action":"repay_negative_balance","text":"Look at the balance of the merchant account in Seller '
    'Central; where it is negative, pay Amazon what is owed."},{"action":"retry_refund","text":"Once the '
    'balance is settled, issue a new refund for the charge; Amazon never reopens a declined refund."},'
    '{"action":"check_refunded_total","text":"Look at the other refunds of the charge: once its maximum has been '
    'refunded, Amazon declines every further one."},'
    '{"action":"refund_another_way","text":"Or compensate the buyer outside Amazon Pay, for example with '
    'store credit, a gift card or a check."}]}}}'
)


def test_the_whole_request_of_a_decline() -> None:
    """Method, address, headers and body, byte for byte; the signature was computed with openssl."""
    request = render([an_event()], a_subscriber(), NOW)
    assert (request.method, request.url) == ("POST", "https://finance.example/hooks")
    assert request.body.decode() == BODY
    assert request.headers == {
        "content-type": "application/cloudevents+json; charset=utf-8",
        "user-agent": "amazon-pay-refund-receiver",
        "webhook-id": "evt_a0b1dbf5ddba89abbeed14ef890d0517",
        "webhook-timestamp": "1563120000",
        "webhook-signature": "v1,cuZ54dGFAk7MdODnHmf9a5fEHJMSNeCiFlrixaYraII=",
    }


def read(body: bytes) -> CloudEvent:
    headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
    event = from_structured_event(HTTPMessage(headers, body))
    assert isinstance(event, CloudEvent)
    return event


def test_the_cloudevents_library_reads_the_body() -> None:
    """The official SDK, an independent reader, finds a valid event of version 1.0 with what we meant in it."""
    event = read(render_body(an_event()))
    assert event.get_specversion() == "1.0"
    assert event.get_id() == "evt_a0b1dbf5ddba89abbeed14ef890d0517"
    assert event.get_source() == "/amazonpay/us"
    assert event.get_type() == "amazonpay.refund.declined"
    assert event.get_subject() == "S01-5105180-3221187-R022311"
    assert event.get_time() == datetime(2019, 7, 14, 16, 0, 0, 250_000, UTC)
    assert event.get_datacontenttype() == "application/json"
    data = event.get_data()
    assert isinstance(data, dict)
    assert data["statusDetails"]["reasonCode"] == "AmazonRejected"


PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_trace_is_an_attribute_of_the_event() -> None:
    """Of CloudEvents' extension Distributed Tracing, which the official SDK reads; no header, nothing else changes."""
    traced = msgspec.structs.replace(an_event(), traceparent=PARENT)
    request = render([traced], a_subscriber(), NOW)
    assert request.body.decode() == f'{BODY[:-1]},"traceparent":"{PARENT}"}}'
    assert request.headers.keys() == render([an_event()], a_subscriber(), NOW).headers.keys()
    event = read(request.body)
    assert event.get_extension("traceparent") == PARENT
    assert event.get_data() == read(BODY.encode()).get_data()


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"cloudevents"}))
def test_formats_for_people_leave_a_trace_out(name: str) -> None:
    subscriber = teller(name)
    traced = msgspec.structs.replace(an_event(), traceparent=PARENT)
    assert render([traced], subscriber, NOW) == render([an_event()], subscriber, NOW)


@given(events(any_text | long_text))
def test_every_body_is_a_small_valid_cloudevent(event: Event) -> None:
    """Whatever Amazon sends: less than 20 KB, UTF-8, and the official SDK accepts it."""
    body = render_body(event)
    assert len(body) <= LARGEST_BODY
    assert read(body).get_attributes().keys() == {
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
    }
    assert list(json.loads(body)["data"])[-1] == "advice"


def test_the_largest_possible_body_is_small_enough() -> None:
    """Every text at its bound, four bytes a character, in the event with the longest advice."""
    texts = dict.fromkeys(
        ("charge_id", "soft_descriptor", "reason_code", "environment", "order_reference", "refund_type"),
        "😀" * 9999,
    )
    texts["order_reference"] = "😀" * MAX_ORDER_REFERENCE
    said = RetryRefused(99, NOW, "😀" * 9999, 422, "😀" * 9999, "😀" * 9999)
    case = Resolution(at=NOW, how=How.COMPENSATED, by="b" * 64, user="😀" * 9999, note="😀" * 9999, refund_id="R" * 64)
    finals = tuple(f"Refunded@{1_563_119_580_000 + n}" for n in range(16))
    event = an_event(
        EventType.CONFLICT,
        account="a" * 64,
        **texts,
        refund_id="R" * 64,
        state="😀" * 9999,
        reason_description="😀" * 9999,
        finals=finals,
        retry_refused=said,
        resolution=case,
        issued_by="b" * 64,
        issued_by_user="😀" * 128,
        retry_of="R" * 64,
        retry_root="R" * 64,
    )
    event = msgspec.structs.replace(event, traceparent=PARENT)
    assert 16_000 < len(render_body(event)) <= LARGEST_BODY


def test_the_standard_webhooks_library_verifies_the_request() -> None:
    """Its `verify` compares with the real clock, so this one attempt is made now."""
    request = render([an_event()], a_subscriber(), int(time.time() * 1000))
    verified = Webhook(SECRET).verify(request.body, dict(request.headers))
    assert verified["data"]["refundId"] == a_refund().refund_id
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.body + b" ", dict(request.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER_SECRET).verify(request.body, dict(request.headers))


def test_the_svix_library_verifies_the_request() -> None:
    """It reads the same headers; a changed body is refused."""
    request = render([an_event()], a_subscriber(), int(time.time() * 1000))
    SvixWebhook(SECRET).verify(request.body, dict(request.headers))
    with pytest.raises(SvixVerificationError):
        SvixWebhook(SECRET).verify(request.body + b" ", dict(request.headers))


NODE = """
const { Webhook } = require(process.argv[1]);
const { secret, body, headers } = JSON.parse(require("fs").readFileSync(0, "utf8"));
new Webhook(secret).verify(body, headers);
let refused = false;
try { new Webhook(secret).verify(body + " ", headers); } catch { refused = true; }
console.log(refused);
"""


CLOUD_EVENT = """
const { HTTP } = require(process.argv[1]);
const { body, headers } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const event = HTTP.toEvent({ headers, body });
console.log(JSON.stringify([event.validate(), event.id, event.type, event.subject, event.data.orderReference]));
"""


def by_node(script: str, package: str) -> str:
    """The output of a script that reads the request with a third-party npm package. Skips without Node or the package,
    which is looked up in the folder that `RECEIVER_TEST_NODE_MODULES` names, or in the project's `node_modules`."""
    modules = Path(outside("NODE_MODULES") or PROJECT / "node_modules")
    node = shutil.which("node")
    if node is None or not (modules / package).is_dir():
        pytest.skip(f"install Node, and the npm package {package} in {modules} (or set RECEIVER_TEST_NODE_MODULES)")
    request = render([an_event(order_reference="Größe 😀")], a_subscriber(), int(time.time() * 1000))
    given = {"secret": SECRET, "body": request.body.decode(), "headers": dict(request.headers)}
    ran = subprocess.run(
        [node, "-e", script, str(modules / package)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stderr == ""
    return ran.stdout.strip()


@pytest.mark.parametrize("package", ["svix", "standardwebhooks"])
def test_the_libraries_for_node_verify_the_request(package: str) -> None:
    """A changed body is refused."""
    assert by_node(NODE, package) == "true"


def test_the_cloudevents_library_for_node_reads_the_request() -> None:
    """The official SDK for JavaScript reads the request by its headers: the event is valid, and the one that was
    sent."""
    event = an_event(order_reference="Größe 😀")
    expected = [True, event.id, "amazonpay.refund.declined", event.refund.refund_id, "Größe 😀"]
    assert json.loads(by_node(CLOUD_EVENT, "cloudevents")) == expected


def test_a_format_of_a_later_version_is_not_sent() -> None:
    """The event stays owed; after a rollback, nothing is sent in another format than the configured one."""
    with pytest.raises(TransportError) as caught:
        render([an_event()], a_subscriber(format="carrier-pigeon"), NOW)
    assert caught.value.reason == "unknown_format"


@pytest.mark.parametrize("event", [an_event(), alarm(), dispute(), mismatch()])
@pytest.mark.parametrize("name", FIELDS)
def test_an_event_of_an_unknown_region_is_sent(name: str, event: AnEvent) -> None:
    """Another version has written its entry, or a person. In a message of several events it stops no other."""
    subscriber = msgspec.structs.replace(teller(name), seller_central="")
    read = read_event("us", {**fields_of(event), "region": "cn"})
    message = [event, read][-FORMATS[name].most_in_one :]
    assert b"https://sellercentral.amazon.com" in render(message, subscriber, NOW).body


def test_while_a_secret_is_changed_both_verify_and_after_it_only_the_new() -> None:
    """Every live secret signs; from the millisecond of its end an old one does not."""
    now = int(time.time() * 1000)
    subscriber = a_subscriber(secrets=(Secret(OTHER_SECRET), Secret(SECRET, expires_at=now)))
    before, after = render([an_event()], subscriber, now - 1), render([an_event()], subscriber, now)
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(before.body, dict(before.headers))
    Webhook(OTHER_SECRET).verify(after.body, dict(after.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(after.body, dict(after.headers))
    assert before.headers["webhook-signature"].count("v1,") == 2
    assert after.headers["webhook-signature"].count("v1,") == 1


def test_a_retry_changes_the_time_and_the_signature_alone() -> None:
    """`webhook-id` and body stay: by them the subscriber recognises a repetition."""
    first, second = render([an_event()], a_subscriber(), NOW), render([an_event()], a_subscriber(), NOW + 5_000)
    assert first.body == second.body
    changed = {name for name in first.headers if first.headers[name] != second.headers[name]}
    assert changed == {"webhook-timestamp", "webhook-signature"}


@pytest.mark.parametrize("secrets", [(), (Secret(SECRET, expires_at=NOW),), (Secret("whsec_short"),)])
def test_nothing_is_sent_unsigned(secrets: tuple[Secret, ...]) -> None:
    """Without a secret that is live and readable the attempt fails before it begins."""
    with pytest.raises(TransportError) as caught:
        render([an_event()], a_subscriber(secrets=secrets), NOW)
    assert caught.value.reason == "no_live_secret"
    assert "whsec" not in str(caught.value)


def test_events_without_advice_say_null() -> None:
    """The shape of `data` does not depend on the type."""
    data = json.loads(render_body(an_event(EventType.REFUNDED, state="Refunded", reason_code="")))["data"]
    assert data["advice"] is None
