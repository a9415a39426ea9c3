"""The certificate store: one fetch for all who wait, everything bounded, nothing remembered for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from receiver.amazon.sns.certificate import SigningCertificate, check_certificate
from receiver.amazon.sns.envelope import Envelope, read_envelope
from receiver.amazon.sns.signature import check_address
from receiver.errors import (
    CertificateUnavailable,
    ConfigurationError,
    ReceiverError,
    TransportError,
    VerificationFailed,
)
from receiver.receive import fetch_queue
from receiver.receive.certificates import FAILED_MAX, PROVEN_MAX, UNPROVEN_MAX, CertificateStore
from receiver.receive.fetch_queue import AT_ONCE_OF_ONE, QUEUED_OF_ONE
from receiver.store import Store
from tests.kit.clock import ManualClock
from tests.kit.sns import NOW, TOPIC, SnsSigner, rsa_key

SIGNER = SnsSigner()
DAY = 86_400_000
SEAL_KEYS = (b"of one merchant", b"of another")


class Host:
    """A certificate host: serves `files` by address; `gate` holds answers back; `trouble` is raised instead."""

    def __init__(self, *signers: SnsSigner) -> None:
        self.files = {signer.url: signer.pem for signer in signers}
        self.asked: list[str] = []
        self.busy = self.busiest = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.trouble: Exception | None = None

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await self.gate.wait()
        finally:
            self.busy -= 1
        if self.trouble is not None:
            raise self.trouble
        if url not in self.files:
            raise CertificateUnavailable("its host answered 404", reason="certificate_not_found")
        return self.files[url]


def signed(signer: SnsSigner = SIGNER, **parts: Any) -> Envelope:
    return read_envelope(json.dumps(signer.envelope(**parts)).encode())


def stranger(number: int) -> Envelope:
    """An envelope that names a file which does not exist."""
    url = f"https://sns.us-east-1.amazonaws.com/SimpleNotificationService-{number:032x}.pem"
    return signed(SigningCertURL=url, Signature="A" * 342 + "==")


async def get(store: CertificateStore, envelope: Envelope, now: int = NOW) -> SigningCertificate:
    """What `/ipn` does with an envelope, but for its signature."""
    certificate = await store.get(envelope, check_address(envelope))
    check_certificate(certificate, envelope.partition, envelope.region, envelope.timestamp, now)
    return certificate


async def prove(store: CertificateStore, envelope: Envelope) -> None:
    store.trust(envelope, check_address(envelope), await get(store, envelope))


async def reason_of(store: CertificateStore, envelope: Envelope, kind: type[ReceiverError], now: int = NOW) -> str:
    with pytest.raises(kind) as caught:
        await get(store, envelope, now)
    return caught.value.reason


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - plain values change here, nobody sets an event
            await asyncio.sleep(0)


@pytest.fixture
def clock() -> ManualClock:
    """The moment that the signer signs at."""
    return ManualClock(NOW)


async def test_two_hundred_first_messages_cause_one_fetch(clock: ManualClock) -> None:
    """Single flight: all wait for the same file, and all get it."""
    host = Host(SIGNER)
    host.gate.clear()
    store = CertificateStore(host.fetch, clock)
    waiting = [asyncio.create_task(get(store, signed())) for _ in range(200)]
    await until(lambda: host.busy == 1)
    host.gate.set()
    found = await asyncio.gather(*waiting)
    assert host.asked == [SIGNER.url]
    assert {certificate.name for certificate in found} == {SIGNER.name}


async def test_the_first_waiter_may_give_up(clock: ManualClock) -> None:
    """Its cancellation neither ends the fetch nor harms those who wait for the same file."""
    host = Host(SIGNER)
    host.gate.clear()
    store = CertificateStore(host.fetch, clock)
    leader = asyncio.create_task(get(store, signed()))
    await until(lambda: host.busy == 1)
    follower = asyncio.create_task(get(store, signed()))
    await asyncio.sleep(0)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert host.busy == 1
    host.gate.set()
    assert (await follower).name == SIGNER.name
    assert len(host.asked) == 1


async def test_a_fetch_that_nobody_awaits_is_still_of_use(clock: ManualClock) -> None:
    """All waiters gave up; the next envelope finds the file."""
    host = Host(SIGNER)
    host.gate.clear()
    store = CertificateStore(host.fetch, clock)
    only = asyncio.create_task(get(store, signed()))
    await until(lambda: host.busy == 1)
    only.cancel()
    await asyncio.gather(only, return_exceptions=True)
    host.gate.set()
    await until(lambda: host.busy == 0)
    assert (await get(store, signed())).name == SIGNER.name
    assert len(host.asked) == 1


async def test_one_file_serves_all_regions_of_a_partition(clock: ManualClock) -> None:
    """Certificates are known by their hash, not by their address."""
    host = Host(SIGNER)
    store = CertificateStore(host.fetch, clock)
    await get(store, signed())
    eu = SnsSigner("eu-west-1")
    assert eu.name == SIGNER.name
    await get(store, signed(eu, topic_arn=TOPIC.replace("us-east-1", "eu-west-1")))
    assert host.asked == [SIGNER.url]


async def test_another_partition_is_another_file(clock: ManualClock) -> None:
    """The host of one partition cannot answer for another."""
    china = SnsSigner("cn-north-1", suffix="amazonaws.com.cn", san=["sns-cn-north-1.amazonaws.com.cn"])
    both = SnsSigner("us-east-1", san=["sns-cn-north-1.amazonaws.com.cn"])
    assert china.name == both.name
    host = Host(china)
    store = CertificateStore(host.fetch, clock)
    await get(store, signed(china, topic_arn="arn:aws-cn:sns:cn-north-1:291180941288:x"))
    assert await reason_of(store, signed(both), CertificateUnavailable) == "certificate_not_found"


async def test_a_thousand_strange_names_cause_few_fetches(clock: ManualClock) -> None:
    """One source has some fetches at once and some waiting; genuine mail goes on, also that of a new certificate."""
    host = Host(SIGNER)
    store = CertificateStore(host.fetch, clock)
    await prove(store, signed())
    host.gate.clear()
    waiting = [asyncio.ensure_future(get(store, stranger(number))) for number in range(1000)]
    await until(lambda: sum(each.done() for each in waiting) == 1000 - AT_ONCE_OF_ONE - QUEUED_OF_ONE)
    assert (await get(store, signed())).name == SIGNER.name
    renewed = SnsSigner(serial=77)
    host.files[renewed.url] = renewed.pem
    genuine = asyncio.ensure_future(store.get(signed(renewed), renewed.name, "192.0.2.1"))
    await until(lambda: renewed.url in host.asked)
    host.gate.set()
    assert (await genuine).name == renewed.name
    found = await asyncio.gather(*waiting, return_exceptions=True)
    reasons = [each.reason for each in found if isinstance(each, CertificateUnavailable)]
    assert reasons.count("certificate_not_found") == AT_ONCE_OF_ONE + QUEUED_OF_ONE
    assert reasons.count("certificate_too_many") == 1000 - AT_ONCE_OF_ONE - QUEUED_OF_ONE
    assert host.busiest <= AT_ONCE_OF_ONE + 1


async def test_network_trouble_is_forgotten_after_5_seconds(clock: ManualClock) -> None:
    """One failed connection must not lose the messages that follow."""
    host = Host(SIGNER)
    host.trouble = TransportError("no route", reason="connect_failed")
    store = CertificateStore(host.fetch, clock)
    with pytest.raises(CertificateUnavailable) as caught:
        await get(store, signed())
    assert (caught.value.status, caught.value.retry_after) == (503, 5)
    host.trouble = None
    clock.ms += 4_999
    assert await reason_of(store, signed(), CertificateUnavailable) == "certificate_unavailable"
    assert len(host.asked) == 1
    clock.ms += 1
    assert (await get(store, signed())).name == SIGNER.name


async def test_a_file_that_is_not_there_is_asked_for_again_after_a_minute(clock: ManualClock) -> None:
    """A 404 is remembered longer, and not for ever; nor when the clock steps back."""
    host = Host()
    store = CertificateStore(host.fetch, clock)
    for later, asked in ((0, 1), (59_999, 1), (1, 2), (-600_000, 3)):
        clock.ms += later
        assert await reason_of(store, signed(), CertificateUnavailable) == "certificate_not_found"
        assert len(host.asked) == asked


async def test_failures_are_remembered_for_a_bounded_number_of_names(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest make room."""
    host = Host()
    store = CertificateStore(host.fetch, clock)
    monkeypatch.setattr(fetch_queue, "BURST", 1e9)
    for number in range(FAILED_MAX + 10):
        await reason_of(store, stranger(number), CertificateUnavailable)
    assert len(store._failed) == FAILED_MAX


async def test_a_hanging_host_is_given_up(clock: ManualClock) -> None:
    """The fetch has its own deadline, and so has the envelope that waits behind others."""
    host = Host(SIGNER)
    host.gate.clear()
    store = CertificateStore(host.fetch, clock, fetch_timeout=0.05)
    assert await reason_of(store, signed(), CertificateUnavailable) == "certificate_slow"
    impatient = CertificateStore(host.fetch, clock, wait_timeout=0.05)
    assert await reason_of(impatient, signed(), CertificateUnavailable) == "certificate_slow"
    host.gate.set()
    assert (await get(impatient, signed())).name == SIGNER.name
    await impatient.close()


async def test_closing_ends_the_fetches(clock: ManualClock) -> None:
    """A waiting client is asked to come again."""
    host = Host(SIGNER)
    host.gate.clear()
    store = CertificateStore(host.fetch, clock)
    waiting = asyncio.create_task(get(store, signed()))
    await until(lambda: host.busy == 1)
    await store.close()
    with pytest.raises(CertificateUnavailable):
        await waiting
    assert host.busy == 0


@pytest.mark.parametrize("error", [RuntimeError("boom"), ValueError("x"), OSError("y")])
async def test_a_fetch_function_that_breaks_is_our_own_trouble(clock: ManualClock, error: Exception) -> None:
    """503, and the log says what kind of error it was."""
    host = Host(SIGNER)
    host.trouble = error
    store = CertificateStore(host.fetch, clock)
    with capture_logs() as logs:
        assert await reason_of(store, signed(), CertificateUnavailable) == "certificate_unavailable"
    assert [entry["error"] for entry in logs] == [type(error).__name__]


async def test_errors_do_not_gather_tracebacks(clock: ManualClock) -> None:
    """Each waiter raises another error."""
    store = CertificateStore(Host().fetch, clock)
    errors = await asyncio.gather(*(get(store, signed()) for _ in range(3)), return_exceptions=True)
    assert len({id(error) for error in errors}) == 3


async def test_unproven_certificates_are_few_and_short_lived(clock: ManualClock) -> None:
    """A certificate that has verified nothing yet stays a minute, and at most eight of them."""
    signers = [SnsSigner(serial=number) for number in range(2, 2 + UNPROVEN_MAX + 1)]
    host = Host(*signers)
    store = CertificateStore(host.fetch, clock)
    for signer in signers:
        await get(store, signed(signer))
    assert len(store._unproven) == UNPROVEN_MAX
    await get(store, signed(signers[-1]))
    assert len(host.asked) == len(signers)
    clock.ms += 60_000
    await get(store, signed(signers[-1]))
    assert len(host.asked) == len(signers) + 1


async def test_volume_does_not_push_out_a_proven_certificate(clock: ManualClock) -> None:
    """Many unproven certificates come and go; the one that verified a message stays, also when the host is down."""
    signers = [SnsSigner(serial=number) for number in range(2, 40)]
    host = Host(SIGNER, *signers)
    store = CertificateStore(host.fetch, clock)
    await prove(store, signed())
    for signer in signers:
        clock.ms += 10_000
        await get(store, signed(signer))
    host.trouble = TransportError("down")
    assert (await get(store, signed())).name == SIGNER.name
    assert store.known()[0].name == SIGNER.name


async def test_proven_certificates_are_bounded_and_end(clock: ManualClock) -> None:
    """Sixteen at most; and past the end of its dates plus the age of the oldest message, one is forgotten."""
    host = Host()
    store = CertificateStore(host.fetch, clock)
    for number in range(2, 2 + PROVEN_MAX + 3):
        signer = SnsSigner(serial=number)
        host.files[signer.url] = signer.pem
        clock.ms += 10_000
        await prove(store, signed(signer))
    assert len(store.known()) == PROVEN_MAX
    clock.ms = NOW + 316 * DAY
    young = SnsSigner(serial=99, not_after=NOW + 400 * DAY)
    host.files[young.url] = young.pem
    await prove(store, signed(young))
    assert [certificate.name for certificate in store.known()] == [young.name]


async def test_dates_are_judged_for_every_message(clock: ManualClock) -> None:
    """Also for a certificate that is proven: it may end while it is kept."""
    host = Host(SIGNER)
    store = CertificateStore(host.fetch, clock)
    await prove(store, signed())
    clock.ms = NOW + 302 * DAY
    late = signed(timestamp_ms=NOW + 301 * DAY)
    assert await reason_of(store, late, VerificationFailed, clock()) == "certificate_dates"
    assert (await get(store, signed(timestamp_ms=NOW + 299 * DAY), clock())).name == SIGNER.name
    clock.ms = NOW - 31 * DAY
    early = signed(timestamp_ms=NOW - 32 * DAY)
    assert await reason_of(store, early, VerificationFailed, clock()) == "certificate_dates"


async def test_a_message_that_is_older_than_its_certificate_was_signed_anew(clock: ManualClock) -> None:
    """SNS repeats a message of ten days ago, and signs it with the certificate that it got yesterday."""
    rotated = SnsSigner(serial=2, not_before=NOW - DAY)
    store = CertificateStore(Host(rotated).fetch, clock)
    await prove(store, signed(rotated, timestamp_ms=NOW - 10 * DAY))
    assert [certificate.name for certificate in store.known()] == [rotated.name]


async def test_a_file_that_is_not_the_one_named_is_503_and_an_alarm(clock: ManualClock) -> None:
    """The rule (MD5 of DER = file name) is undocumented: a mismatch must not lose notifications, and must raise an
    alarm."""
    other = SnsSigner(key=rsa_key(number=1))
    host = Host()
    host.files[SIGNER.url] = other.pem
    store = CertificateStore(host.fetch, clock)
    with capture_logs() as logs:
        assert await reason_of(store, signed(), CertificateUnavailable) == "certificate_not_as_named"
        assert await reason_of(store, signed(), CertificateUnavailable) == "certificate_not_as_named"
    assert len(host.asked) == 1
    assert [entry for entry in logs if entry["event"] == "certificate.not_as_named"] == [
        {
            "event": "certificate.not_as_named",
            "log_level": "error",
            "file": SIGNER.name,
            "found": other.name,
            "setting": "enforce",
        }
    ]


async def test_the_name_rule_can_be_lowered_to_an_alarm(clock: ManualClock) -> None:
    """Setting `warn`: the file is used, and the alarm is raised once for each fetch."""
    other = SnsSigner(key=rsa_key(number=1))
    host = Host()
    host.files[SIGNER.url] = other.pem
    store = CertificateStore(host.fetch, clock, md5="warn")
    with capture_logs() as logs:
        await prove(store, signed())
        assert (await get(store, signed())).name == other.name
    assert [entry["event"] for entry in logs] == ["certificate.not_as_named", "certificate.proven"]


@pytest.mark.parametrize("body", [b"", b"<html>sign in</html>", SIGNER.pem + SIGNER.pem, b"\x00" * 20_000])
@pytest.mark.parametrize("md5", ["enforce", "warn"])
async def test_garbage_from_the_host_is_503(clock: ManualClock, body: bytes, md5: Any) -> None:
    """What is no certificate file at all is not the file that was asked for, whatever the setting."""
    host = Host()
    host.files[SIGNER.url] = body
    store = CertificateStore(host.fetch, clock, md5=md5)
    assert await reason_of(store, signed(), CertificateUnavailable) == "certificate_not_pem"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"key": rsa_key(1024)}, "certificate_weak_key"),
        ({"ca": True}, "certificate_is_ca"),
        ({"san": ["evil.example"]}, "certificate_wrong_name"),
    ],
)
async def test_an_unfit_certificate_of_the_right_name_is_403(
    clock: ManualClock, change: dict[str, Any], reason: str
) -> None:
    """The very file that the envelope names, and not fit to sign for SNS: final."""
    bad = SnsSigner(**change)
    host = Host(bad)
    store = CertificateStore(host.fetch, clock)
    for _ in range(2):
        assert await reason_of(store, signed(bad, Signature="A" * 342 + "=="), VerificationFailed) == reason
    assert len(host.asked) == 1


async def test_pinned_certificates_are_never_fetched(clock: ManualClock) -> None:
    """They serve every region of the partition, and are held to the same dates and names."""
    host = Host()
    store = CertificateStore(host.fetch, clock, pinned={SIGNER.url: SIGNER.pem})
    envelope = signed(SnsSigner("eu-west-1"), topic_arn=TOPIC.replace("us-east-1", "eu-west-1"))
    await prove(store, envelope)
    clock.ms = NOW + 301 * DAY
    late = signed(timestamp_ms=NOW + 301 * DAY)
    assert await reason_of(store, late, VerificationFailed, clock()) == "certificate_dates"
    assert host.asked == []
    assert [certificate.name for certificate in store.known()] == [SIGNER.name]


def test_all_unusable_pins_are_reported_at_once(clock: ManualClock) -> None:
    """A wrong address, a file that is no certificate, a file of another name: one sentence each."""
    other = SnsSigner(key=rsa_key(number=1))
    pinned = {
        "https://evil.example/x.pem": SIGNER.pem,
        SIGNER.url: b"text",
        other.url: SIGNER.pem,
    }
    with capture_logs(), pytest.raises(ConfigurationError) as caught:
        CertificateStore(Host().fetch, clock, pinned=pinned)
    assert len(caught.value.problems) == 3


async def test_what_was_proven_needs_no_fetch_after_a_start(store: Store) -> None:
    """Strangers have taken all that their client address may have; genuine mail is read all the same."""
    host, clock = Host(SIGNER), ManualClock(NOW)
    before = CertificateStore(host.fetch, clock, seal_keys=SEAL_KEYS)
    before.trust(signed(), SIGNER.name, await before.get(signed(), SIGNER.name))
    await before.sync(store)
    await before.sync(store)
    assert await store.certificates() == {f"aws/{SIGNER.name}": SIGNER.der}

    after = CertificateStore(host.fetch, clock, seal_keys=SEAL_KEYS[1:])
    await after.sync(store)
    host.gate.clear()
    strangers = [asyncio.ensure_future(get(after, stranger(number))) for number in range(100)]
    await until(lambda: any(each.done() for each in strangers))
    assert (await after.get(signed(), SIGNER.name)).name == SIGNER.name
    assert host.asked.count(SIGNER.url) == 1
    await after.close()
    await asyncio.gather(*strangers, return_exceptions=True)


@pytest.mark.parametrize("der", [b"", b"\xff" * 40, SnsSigner(serial=99).der])
async def test_a_damaged_shelf_is_not_believed(store: Store, der: bytes) -> None:
    """A stored certificate must match its name, like a fetched file."""
    host = Host(SIGNER)
    await store.keep_certificates({f"aws/{SIGNER.name}": der, "": der})
    certificates = CertificateStore(host.fetch, ManualClock(NOW))
    with capture_logs() as logs:
        await certificates.sync(store)
    assert [line["event"] for line in logs].count("certificate.shelf_damaged") == 2
    assert certificates.known() == []
    assert (await certificates.get(signed(), SIGNER.name)).name == SIGNER.name


async def test_a_certificate_that_somebody_plants_in_the_store_does_not_sign(store: Store) -> None:
    """It is named as its own file would be, and passes every other check; Amazon's host has no such file."""
    planted, clock = SnsSigner(serial=7), ManualClock(NOW)
    honest = CertificateStore(Host(SIGNER).fetch, clock, seal_keys=SEAL_KEYS)
    honest.trust(signed(), SIGNER.name, await honest.get(signed(), SIGNER.name))
    await honest.sync(store)
    seals = await store.certificate_seals()
    forged = {name.replace(SIGNER.name, planted.name): seal for name, seal in seals.items()}
    assert len(forged) == len(SEAL_KEYS)
    await store.keep_certificates({f"aws/{planted.name}": planted.der}, forged)
    host = Host(SIGNER)
    certificates = CertificateStore(host.fetch, clock, seal_keys=SEAL_KEYS)
    with capture_logs() as logs:
        await certificates.sync(store)
    assert [line["file"] for line in logs if line["event"] == "certificate.not_sealed"] == [planted.name]
    assert [each.name for each in certificates.known()] == [SIGNER.name]
    assert await reason_of(certificates, signed(planted), CertificateUnavailable) == "certificate_not_found"
    assert host.asked == [planted.url]


async def test_what_an_older_version_kept_without_a_seal_is_fetched_again(store: Store) -> None:
    host = Host(SIGNER)
    await store.keep_certificates({f"aws/{SIGNER.name}": SIGNER.der})
    certificates = CertificateStore(host.fetch, ManualClock(NOW), seal_keys=SEAL_KEYS)
    await certificates.sync(store)
    assert certificates.known() == []
    found = await certificates.get(signed(), SIGNER.name)
    certificates.trust(signed(), SIGNER.name, found)
    await certificates.sync(store)
    again = CertificateStore(Host().fetch, ManualClock(NOW), seal_keys=SEAL_KEYS)
    await again.sync(store)
    assert [each.name for each in again.known()] == [SIGNER.name]


async def test_what_has_expired_is_not_taken_from_the_shelf(store: Store) -> None:
    """No message that is young enough can have been signed with it."""
    await store.keep_certificates({f"aws/{SIGNER.name}": SIGNER.der})
    certificates = CertificateStore(Host(SIGNER).fetch, ManualClock(NOW + 20 * 365 * DAY))
    await certificates.sync(store)
    assert certificates.known() == []
