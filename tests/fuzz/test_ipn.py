"""`POST /ipn` with hostile input: every request is judged, logged in one line that repeats nothing of it, and written
only if it is proven; no outgoing request is made for a stranger.

The whole ASGI application with a real store, called without a socket: so headers and bodies can be any bytes at all.
Whether a message is proven is computed here independently.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from starlette.types import ASGIApp, Message
from structlog.testing import capture_logs

from receiver.errors import CertificateUnavailable, TransportError
from receiver.http.app import build
from receiver.ledger.notification import NotificationOutcome, PostedNotification, Receipt
from receiver.receive.certificates import CertificateStore
from receiver.receive.receiver import Receiver
from receiver.runtime.metrics import REASONS, Metrics
from receiver.store import Store
from receiver.store.redis.pipeline import connect
from tests.http.kit import settings
from tests.kit.accounts import TOPIC, make_account
from tests.kit.sns import NOW, SnsSigner, headers, notice, rsa_key, signed_text, timestamp

CANARY = "hunter2hunter2"
"""Part of every value that is put into a body here. If it appears in a log line, any text could."""
DAY = 86_400_000
STATUSES = {200, 400, 403, 413, 415, 501, 503}
BELIEVED = frozenset(NotificationOutcome)
REFUSALS = REASONS - {"", "internal_error"}
ACCOUNT = make_account()
MESSAGE_ID = "0f7f9e1c-5c0e-4b9f-9f4e-2d1c6b7a8e90"
SNS = SnsSigner()
OTHER_SNS = SnsSigner(key=rsa_key(number=1), serial=7)
"""A certificate of the right form that is not pinned: its address may be asked, and does not answer."""
TOLD = ("merchant_id", "refund_id", "object_type")
ID = re.compile(r"[A-Za-z0-9_-]{0,64}")
ALLOWED_TOPIC = re.compile(r"arn:aws:sns:us-east-1:291180941288:[A-Za-z0-9_-]{1,256}")
ALLOWED_ADDRESS = re.compile(r"https://sns\.us-east-1\.amazonaws\.com/SimpleNotificationService-[0-9a-f]{32}\.pem")
ALLOWED_VISIT = re.compile(
    r"https://sns\.us-east-1\.amazonaws\.com/\?Action=ConfirmSubscription&TopicArn=(\S+)&Token=\w+"
)

FUZZ = hypothesis_settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


@dataclass
class Answer:
    """The result of one body."""

    status: int
    said: bytes
    lines: list[Any]
    fetched: list[str]
    visited: list[str]
    keys: int


@dataclass
class Target:
    """The application, and everything that it could touch. Each body meets a receiver without a past."""

    store: Store
    redis: Redis
    run: Callable[[Any], Any]
    fetched: list[str] = field(default_factory=list)
    visited: list[str] = field(default_factory=list)
    waiting: int = 0

    def __post_init__(self) -> None:
        async def nothing() -> None:
            return None

        self.app: ASGIApp = build(
            settings(),
            receiver=self,
            store=self.store,
            metrics=Metrics(),
            now=lambda: NOW,
            checks={},
            refresh_gauges=nothing,
        )

    async def receive(self, posted: PostedNotification) -> Receipt:
        """The verb itself."""
        certificates = CertificateStore(self._fetch, lambda: NOW, pinned={SNS.url: SNS.pem})
        try:
            it = Receiver([ACCOUNT], certificates, self.store, lambda: NOW, confirm=self._confirm)
            return await it.receive(posted)
        finally:
            await certificates.close()

    async def _fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        if len(self.fetched) % 2:
            raise TransportError("There is no web here.")
        raise CertificateUnavailable(reason="certificate_not_found")

    async def _confirm(self, url: str) -> None:
        self.visited.append(url)

    def post(
        self, body: bytes, sent: list[tuple[bytes, bytes]] | None = None, path: str = "/ipn", cuts: tuple[int, ...] = ()
    ) -> Answer:
        """One POST, its body in pieces that end at `cuts`."""
        return self.run(self._post(body, sent or [], path, cuts))  # type: ignore[no-any-return]

    async def _post(self, body: bytes, sent: list[tuple[bytes, bytes]], path: str, cuts: tuple[int, ...]) -> Answer:
        await self.redis.flushall()
        self.fetched, self.visited = [], []
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "replace"),
            "query_string": b"",
            "root_path": "",
            "headers": sent,
            "client": ("192.0.2.1", 1),
            "server": ("127.0.0.1", 80),
        }
        said: list[Message] = []
        with capture_logs() as lines:
            async with asyncio.timeout(30):
                await self.app(scope, pieces(body, cuts), collector(said))
        status = next(message["status"] for message in said if message["type"] == "http.response.start")
        text = b"".join(message.get("body", b"") for message in said)
        return Answer(status, text, list(lines), self.fetched, self.visited, await self.redis.dbsize())


def pieces(body: bytes, cuts: tuple[int, ...]) -> Callable[[], Awaitable[Message]]:
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    parts = [body[a:b] for a, b in pairwise(edges)] or [b""]
    rest: Iterator[Message] = iter(
        {"type": "http.request", "body": part, "more_body": at < len(parts)} for at, part in enumerate(parts, 1)
    )

    async def receive() -> Message:
        return next(rest, {"type": "http.disconnect"})

    return receive


def collector(said: list[Message]) -> Callable[[Message], Awaitable[None]]:
    async def send(message: Message) -> None:
        said.append(message)

    return send


@pytest.fixture(scope="module")
def target(valkey_url: str) -> Iterator[Target]:
    """One application for all that is thrown at it."""
    with asyncio.Runner() as runner:
        redis = connect(valkey_url)
        store = Store(connect(valkey_url))
        try:
            yield Target(store, redis, runner.run)
        finally:
            runner.run(store.close())
            runner.run(redis.aclose())


# What must be true of every answer


def check(answer: Answer, body: bytes) -> None:
    """Never a 500, one line with a stable reason, nothing repeated, nothing written or asked that was not proven."""
    assert answer.status in STATUSES
    if answer.status == 501:  # a transfer coding that is not decoded: refused before the route, to be sent again
        assert (answer.keys, answer.fetched, answer.visited) == (0, [], [])
        return
    assert answer.said == b""
    told = [line for line in answer.lines if line["event"].startswith("ipn.")]
    assert [line["event"] for line in told] == ["ipn.answered"]
    if answer.status == 200:
        assert told[0]["outcome"] in BELIEVED
    else:
        assert told[0]["reason"] in REFUSALS
    fields = fields_of(body)
    check_log(answer.lines, proven(fields))
    if not proven(fields):
        assert answer.status != 200
        assert answer.keys == 0
        assert answer.visited == []
    assert (answer.keys > 0) == (answer.status == 200 and told[0]["outcome"] in ("noted", "altered", "unrecognized"))
    for url in answer.fetched:
        assert ALLOWED_ADDRESS.fullmatch(url)
        assert ALLOWED_TOPIC.fullmatch(fields["TopicArn"])
        assert fields["SigningCertURL"] == url
    for url in answer.visited:
        assert ALLOWED_VISIT.fullmatch(url)
        assert fields["Type"] == "SubscriptionConfirmation"


def check_log(lines: list[Any], believed: bool) -> None:
    """The log repeats nothing of an unproven message except the account's name in the path, and nothing of a proven one
    except ids in their documented form."""
    for line in lines:
        if line["event"] == "notification.unconfigured_account":
            assert ID.fullmatch(line.pop("asked").replace(" ", ""))
        for name in TOLD if believed else ():
            assert ID.fullmatch(str(line.get(name, "")))
        rest = {name: value for name, value in line.items() if not (believed and name in TOLD)}
        assert CANARY not in repr(rest)


def fields_of(body: bytes) -> dict[str, Any]:
    """The body as a lenient reader has it."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def proven(fields: dict[str, Any]) -> bool:
    """Whether Amazon's key has signed these fields, for an allowed topic: worked out without the receiver's code."""
    try:
        text, signature = signed_text(fields), base64.b64decode(fields["Signature"])
        chosen = {"1": hashes.SHA1(), "2": hashes.SHA256()}[fields["SignatureVersion"]]
        key = SNS.key
        if not isinstance(key, rsa.RSAPrivateKey):
            return False
        key.public_key().verify(signature, text, padding.PKCS1v15(), chosen)
        in_time = timestamp(NOW - 15 * DAY) <= fields["Timestamp"] <= timestamp(NOW + 300_000)
        return fields["SigningCertURL"] == SNS.url and bool(ALLOWED_TOPIC.fullmatch(fields["TopicArn"])) and in_time
    except (KeyError, TypeError, ValueError, InvalidSignature):
        return False


# What is thrown

TEXTS = st.one_of(
    st.just(CANARY),
    st.text(max_size=12).map(lambda text: f"{CANARY}{text}"),
    st.sampled_from(
        [f"\n{CANARY}", f"{CANARY}\x00", f"{CANARY}\ud800", f"{CANARY}\u2028", f"<x>{CANARY}</x>", f"${{{CANARY}}}"]
    ),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        TEXTS, st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["", "1", "2", "3", "1 ", "١"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
SIGNED = ["Type", "MessageId", "TopicArn", "Message", "Timestamp", "Subject", "Token", "SubscribeURL"]
FIELDS = st.sampled_from(
    [*SIGNED, "SignatureVersion", "Signature", "SigningCertURL", "UnsubscribeURL", "MessageAttributes"]
)
ODD_NAMES = st.one_of(TEXTS, st.sampled_from(["messageid", "SigningCertUrl", "TYPE", "Message\n", "signature"]))
TOPICS = st.sampled_from(
    [
        f"arn:aws:sns:us-east-1:666666666666:{CANARY}",
        f"arn:aws:sns:eu-west-1:598607868003:{CANARY}",
        f"{TOPIC}\n",
        f"{TOPIC}.fifo",
        TOPIC.replace("us-east-1", "us-west-2"),
        TOPIC.replace("arn:aws:", "arn:aws-cn:"),
        TOPIC.replace("291180941288", "598607868003"),
        TOPIC.upper(),
        "arn:aws:sns:us-east-1:291180941288:another",
        "*",
    ]
)
ADDRESSES = st.sampled_from(
    [
        OTHER_SNS.url,
        SNS.url.replace("https", "http"),
        SNS.url.replace("us-east-1", "us-west-2"),
        SNS.url.replace("sns.us-east-1.amazonaws.com", "sns.us-east-1.amazonaws.com.example"),
        SNS.url.replace("https://", f"https://{CANARY}@"),
        SNS.url.replace("https://", "https://example\\@"),
        f"{SNS.url}?{CANARY}",
        f"{SNS.url}\n",
        f" {SNS.url}",
        SNS.url.replace("Simple", f"../{CANARY}/Simple"),
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        SNS.url.replace("sns", "sn\u0073\u200b"),
        SNS.url[:-4],
        SNS.url.upper(),
    ]
)
TIMES = st.integers(-20 * DAY, DAY).map(lambda ms: timestamp(NOW + ms))
XML = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e "hunter2hunter2">]><RefundNotification>&e;</RefundNotification>',
    "<RefundNotification><RefundDetails><AmazonRefundId>hunter2hunter2</AmazonRefundId></RefundDetails></RefundNotification>",
    "<a>" * 300,
)
NOTICES = st.one_of(
    st.dictionaries(
        st.sampled_from(
            ["MerchantID", "ObjectType", "ObjectId", "NotificationType", "NotificationVersion", "NotificationId"]
        ),
        VALUES,
        max_size=3,
    ).map(lambda parts: notice(**parts)),
    st.sampled_from([json.dumps({"NotificationData": text, "NotificationType": "PaymentRefund"}) for text in XML]),
    st.sampled_from(
        ["", "[]", "null", "[" * 500, '{"MerchantID":1e999}', notice(MerchantID="A2SOMEBODYELSE"), notice()]
    ),
    TEXTS,
)
CHANGES = st.one_of(
    st.tuples(FIELDS, VALUES),
    st.tuples(ODD_NAMES, VALUES),
    st.tuples(st.just("TopicArn"), TOPICS),
    st.tuples(st.just("SigningCertURL"), ADDRESSES),
    st.tuples(st.just("Timestamp"), TIMES),
    st.tuples(st.just("Message"), NOTICES),
    st.tuples(st.just("SignatureVersion"), st.sampled_from(["1", "2"])),
    st.tuples(
        st.just("Type"), st.sampled_from(["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"])
    ),
)


@st.composite
def envelopes(draw: st.DrawFn) -> dict[str, Any]:
    """A good envelope that was changed, and then maybe signed again by Amazon's own key."""
    kind = draw(st.sampled_from(["Notification"] * 4 + ["SubscriptionConfirmation", "UnsubscribeConfirmation"]))
    message, version = draw(st.one_of(st.none(), NOTICES)), draw(st.sampled_from([1, 2]))
    fields = SNS.envelope(message, kind=kind, version=version, MessageId=MESSAGE_ID)
    for name, value in draw(st.lists(CHANGES, max_size=3)):
        fields[name] = value
    for name in draw(st.lists(FIELDS, max_size=1)) if draw(st.booleans()) else []:
        fields.pop(name, None)
    if draw(st.booleans()):
        sign_again(fields)
    return fields


def sign_again(fields: dict[str, Any]) -> None:
    try:
        fields["Signature"] = SNS.sign(signed_text(fields), 2 if fields["SignatureVersion"] == "2" else 1)
    except (KeyError, TypeError):
        return


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The bytes of such an envelope, maybe with some of them changed, cut off, doubled or added."""
    body = bytearray(json.dumps(draw(envelopes()), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, max(len(body) - 1, 0)))
        match draw(st.sampled_from(["flip", "cut", "double", "insert", "key"])):
            case "flip":
                body[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "cut":
                del body[at:]
            case "double":
                body += body[at:]
            case "insert":
                body[at:at] = draw(st.binary(max_size=4))
            case _:
                name = draw(FIELDS)
                body[:1] = b"{" + json.dumps({name: CANARY}).encode()[1:-1] + b","
    return bytes(body)


NAMES = st.one_of(
    st.sampled_from(
        [
            *(b"x-amz-sns-message-type", b"x-amz-sns-message-id", b"x-amz-sns-topic-arn", b"x-amz-sns-rawdelivery"),
            *(b"content-length", b"content-encoding", b"content-type", b"transfer-encoding", b"x-request-id"),
            *(b"host", b"x-forwarded-for", b"expect", b"authorization"),
        ]
    ),
    st.binary(min_size=1, max_size=10).map(bytes.lower),
)
HEADER_VALUES = st.one_of(
    st.binary(max_size=16).map(lambda value: CANARY.encode() + value),
    st.sampled_from(
        [b"", b"identity", b"gzip", b"0", b"-1", b"9" * 40, b"\xb2", b"true", TOPIC.encode(), b"Notification"]
    ),
)
HEADERS = st.lists(st.tuples(NAMES, HEADER_VALUES), max_size=5)
PATHS = st.one_of(
    st.sampled_from(["/ipn", "/ipn/", "/ipn/us", "/ipn/us/", "/ipn/old-name", "/ipn/%2e%2e", "/ipn/\ud800"]),
    st.text(st.characters(exclude_characters="/"), min_size=1, max_size=8).map(lambda name: f"/ipn/{CANARY}{name}"),
)
CUTS = st.lists(st.integers(0, 5_000), max_size=3).map(tuple)


def true_headers(fields: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    """What SNS sends along, as far as the fields have it."""
    texts = {name: it if isinstance(it := fields.get(name), str) else "" for name in ("Type", "MessageId", "TopicArn")}
    return [(name.encode(), value.encode("utf-8", "replace")) for name, value in headers(texts).items()]


@hypothesis_settings(FUZZ, max_examples=400)
@given(
    body=st.one_of(st.binary(max_size=400), VALUES.map(lambda it: json.dumps(it).encode())), sent=HEADERS, path=PATHS
)
@example(body=b"[" * 100_000, sent=[], path="/ipn")
@example(body=b'{"a":' * 50_000, sent=[], path="/ipn")
@example(body=b"1" * 250_000, sent=[], path="/ipn")
@example(body=b" " * 300_000, sent=[], path="/ipn")
@example(body=b'{"Type":"' + b"\\ud800" * 20_000 + b'"}', sent=[], path="/ipn")
@example(body=b"\xef\xbb\xbf{}", sent=[], path="/ipn")
@example(body=b'{"Type":NaN}', sent=[(b"content-length", b"\xb2\xb3")], path="/ipn")
def test_whatever_comes_is_refused(target: Target, body: bytes, sent: list[tuple[bytes, bytes]], path: str) -> None:
    """Any bytes with any headers on any path: a refusal, or a wait, and no more than that."""
    answer = target.post(body, sent, path)
    check(answer, body)
    assert answer.status != 200
    assert answer.fetched == []


@hypothesis_settings(FUZZ, max_examples=700)
@given(
    body=damaged(), extra=HEADERS, with_true=st.booleans(), path=st.sampled_from(["/ipn", "/ipn", "/ipn/us"]), cuts=CUTS
)
def test_a_damaged_envelope_is_believed_only_if_it_is_proven(
    target: Target, body: bytes, extra: list[tuple[bytes, bytes]], with_true: bool, path: str, cuts: tuple[int, ...]
) -> None:
    """Whatever was changed, and whoever signed it: only what carries Amazon's signature is believed and written."""
    sent = [*(true_headers(fields_of(body)) if with_true else []), *(extra if len(extra) % 2 else [])]
    check(target.post(body, sent, path, cuts), body)


@hypothesis_settings(FUZZ, max_examples=100)
@given(address=st.one_of(ADDRESSES, TEXTS), topic=st.one_of(TOPICS, st.just(TOPIC)))
def test_no_certificate_is_fetched_for_a_stranger(target: Target, address: str, topic: str) -> None:
    """It takes an allowed topic and the one address of the topic's region; then one file is asked for."""
    body = json.dumps(OTHER_SNS.envelope(topic_arn=topic, SigningCertURL=address)).encode()
    answer = target.post(body)
    check(answer, body)
    allowed = ALLOWED_TOPIC.fullmatch(topic) and ALLOWED_ADDRESS.fullmatch(address)
    assert answer.fetched == ([address] if allowed else [])


@pytest.mark.parametrize("version", [1, 2])
def test_the_fire_is_aimed(target: Target, version: int) -> None:
    """An unchanged envelope is accepted, so the tests above fail because of their changes."""
    body = SNS.post_body(version=version)
    answer = target.post(body, cuts=(1, 100))
    check(answer, body)
    assert (answer.status, answer.fetched) == (200, [])
    assert proven(fields_of(body))
