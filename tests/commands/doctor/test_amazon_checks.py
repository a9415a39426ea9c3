"""Amazon as the doctor asks it: the real simulator on a real socket; keys, clocks and addresses, right and wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from receiver.amazon.calls import get_refund
from receiver.commands.doctor.amazon import check_amazon
from receiver.commands.doctor.finding import Finding, Status
from receiver.commands.doctor.keys import check_crypto, check_keys
from receiver.commands.doctor.site import Site
from receiver.simulator.app import Simulator
from receiver.transport.client import Transport
from tests.commands.doctor.kit import only, silence, site, system_clock, words
from tests.kit.configuration import table
from tests.kit.shared import keys
from tests.kit.webserver import serving
from tests.service.kit import trust


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    found = Transport(tls=trust())
    yield found
    await found.close()


@pytest.fixture
async def amazon() -> AsyncIterator[Simulator]:
    """Amazon's stand-in, with its own clock."""
    async with Simulator(keys=keys(), throttle={}) as found:
        yield found


def account(amazon: Simulator, **more: Any) -> dict[str, Any]:
    fields = {
        "environment": amazon.environment,
        "merchant_id": amazon.merchant_id,
        "public_key_id": amazon.public_key_id,
        "private_key": amazon.merchant_private_key_pem.decode(),
        "endpoint": amazon.base_url,
    }
    return {**table("us"), **fields, **more}


def asked_by(transport: Transport, *accounts: dict[str, Any], **more: Any) -> Site:
    return site(*accounts, send=transport.send, **more)


async def test_a_right_key_is_accepted(amazon: Simulator, transport: Transport) -> None:
    """By the 404 to a Get Refund of a refund that does not exist; for disputes, by that to a Get Dispute."""
    found = await check_amazon(asked_by(transport, account(amazon)))
    assert words(found) == {}
    assert "accepts the key" in only(found, "amazon.key").found
    assert "may use Get Dispute" in only(found, "amazon.disputes").found
    assert [(call.call, call.object_id) for call in amazon.calls] == [
        ("get_refund", "S01-0000000-0000000-R000000"),
        ("get_dispute", "S01-0000000-0000000-B000000"),
    ]


async def test_a_key_without_the_right_to_get_dispute_is_warned_of(amazon: Simulator, transport: Transport) -> None:
    """All else works; the fix says what it means for refunds."""
    amazon.fault_injection.add("refuse", kind="access", place="get_dispute", times=None)
    found = await check_amazon(asked_by(transport, account(amazon)))
    assert words(found) == {"amazon.disputes": "no_right"}
    finding = only(found, "amazon.disputes")
    assert (finding.status, finding.subject) == (Status.WARN, "us")
    assert "blocks refunds" in finding.fix


async def test_what_get_dispute_says_of_itself_is_not_taken_for_a_missing_right(
    amazon: Simulator, transport: Transport
) -> None:
    """Amazon fails, so nothing is known."""
    amazon.fault_injection.add("error", place="get_dispute", times=None)
    finding = only(await check_amazon(asked_by(transport, account(amazon))), "amazon.disputes")
    assert (finding.status, finding.reason) == (Status.SKIP, "amazon_unknown")


async def test_a_key_of_another_pair_is_refused_with_the_cause(amazon: Simulator, transport: Transport) -> None:
    """Amazon echoes the text that it would have signed. It is the same, so the key is wrong."""
    other = table("x")["private_key"]
    found = only(await check_amazon(asked_by(transport, account(amazon, private_key=other))), "amazon.key")
    assert (found.status, found.reason, found.subject) == (Status.FAIL, "key_refused", "us")
    assert "private_key_file does not belong to public_key_id" in found.fix


async def test_a_key_id_that_amazon_does_not_know_is_refused(amazon: Simulator, transport: Transport) -> None:
    """The fix names where to look."""
    found = only(await check_amazon(asked_by(transport, account(amazon, public_key_id="SANDBOX-X"))), "amazon.key")
    assert (found.status, found.reason) == (Status.FAIL, "key_refused")
    assert "Seller Central" in found.fix


async def test_each_account_is_asked_at_its_own_address(amazon: Simulator, transport: Transport) -> None:
    """And judged separately."""
    async with Simulator(keys=keys(), environment="live", throttle={}) as live:
        second = {**account(live, public_key_id="LIVE-WRONG"), "name": "live"}
        found = await check_amazon(asked_by(transport, account(amazon), second))
        assert [call.object_id for call in live.calls] == ["P01-0000000-0000000-R000000"]
    by_account = {each.subject: each.status for each in found if each.check == "amazon.key"}
    assert by_account == {"us": Status.OK, "live": Status.FAIL}
    assert [call.call for call in amazon.calls] == ["get_refund", "get_dispute"]


async def test_a_throttled_call_says_that_the_key_is_right(transport: Transport) -> None:
    """Amazon judges the signature first."""
    async with Simulator(keys=keys(), throttle={"get_refund": (1, 0.001)}) as amazon:
        here = asked_by(transport, account(amazon))
        await check_amazon(here)
        found = only(await check_amazon(here), "amazon.key")
    assert found.status is Status.OK
    assert "429" in found.found


@pytest.mark.parametrize(
    ("ahead", "status"),
    [
        (3_000, Status.WARN),
        (20_000, Status.WARN),
        (-20_000, Status.WARN),
        (400_000, Status.FAIL),
        (-400_000, Status.FAIL),
    ],
)
async def test_a_clock_that_is_off_is_told(amazon: Simulator, transport: Transport, ahead: int, status: Status) -> None:
    """By the Date of Amazon's answer."""
    found = await check_amazon(asked_by(transport, account(amazon), system_clock=lambda: system_clock() + ahead))
    clock = only(found, "clock.amazon")
    assert clock.status is status
    assert ("ahead of" if ahead > 0 else "behind") in clock.found
    assert "NTP" in clock.fix
    assert only(found, "amazon.key").status is Status.OK


async def test_trouble_on_the_way_has_its_word(transport: Transport, amazon: Simulator) -> None:
    """No listener; a listener without TLS."""
    async with serving(b"", greeting=b"220 mail.example\r\n") as plain:
        nobody = account(amazon, endpoint="http://127.0.0.1:1")
        no_tls = account(amazon, name="tls", merchant_id="A2OTHEROTHER", endpoint=f"https://127.0.0.1:{plain.port}")
        found = await check_amazon(asked_by(transport, nobody, no_tls))
    told = {each.subject: each.reason for each in found if each.check == "amazon.reachable"}
    assert told == {"us": "connect_failed", "tls": "tls_failed"}
    assert all(each.fix for each in found if each.status is Status.FAIL)


async def test_one_that_hangs_is_given_up(
    transport: Transport, amazon: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `TIMEOUT`, here shortened."""
    monkeypatch.setattr("receiver.commands.doctor.amazon.TIMEOUT", 0.3)
    async with silence() as port, asyncio.timeout(5):
        found = await check_amazon(asked_by(transport, account(amazon, endpoint=f"http://127.0.0.1:{port}")))
    assert words(found) == {"amazon.reachable": "timeout", "amazon.key": "not_reached"}


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ("503 Service Unavailable", Status.WARN, "amazon_unknown"),
        ("403 Forbidden", Status.FAIL, "key_refused"),
        ("400 Bad Request", Status.WARN, "amazon_refuses_us"),
        ("407 Proxy Authentication Required", Status.FAIL, "way_refused"),
        ("426 Upgrade Required", Status.FAIL, "way_refused"),
        ("302 Found", Status.WARN, "amazon_unknown"),
    ],
)
async def test_other_answers(transport: Transport, amazon: Simulator, answer: str, status: Status, reason: str) -> None:
    """An answer that says nothing about the key is not blamed on the key."""
    date = format_datetime(datetime.now(UTC), usegmt=True)
    says = f"HTTP/1.1 {answer}\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode()
    async with serving(says) as web:
        found = await check_amazon(asked_by(transport, account(amazon, endpoint=web.url)))
    key = only(found, "amazon.key")
    assert (key.status, key.reason) == (status, reason)
    assert only(found, "clock.amazon").status is Status.OK


async def test_offline_asks_nobody(amazon: Simulator, transport: Transport) -> None:
    """And says so."""
    found = await check_amazon(asked_by(transport, account(amazon), offline=True))
    assert words(found) == {"amazon.key": "offline"}
    assert not amazon.calls


async def test_keys_sign_what_they_verify(amazon: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is damaged in memory or by hand does not."""
    here = site(account(amazon))
    [right] = await check_keys(here)
    assert right.status is Status.OK
    assert "SANDBOX-" in right.found
    signer = here.accounts[0].signer
    signed = signer.sign(_request(here), system_clock())
    assert signer.verifies(signed)
    assert not signer.verifies(signed.with_headers(accept="text/html"))
    assert not signer.verifies(signed.with_headers(authorization="Signature=AAAA"))
    monkeypatch.setattr(type(signer), "verifies", lambda *_: False)
    [wrong] = await check_keys(here)
    assert (wrong.status, wrong.reason) == (Status.FAIL, "key_damaged")


def _request(here: Site) -> Any:
    return get_refund(here.accounts[0].endpoint, "S01-0000000-0000000-R000000")


async def test_known_answers_verify_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where the machine's crypto policy forbids SHA-1 the finding says what to allow."""
    [right] = await check_crypto()
    assert right.status is Status.OK
    monkeypatch.setattr("receiver.amazon.sns.known_answers.TEXT", b"another text")
    found: list[Finding] = await check_crypto()
    assert [each.status for each in found] == [Status.FAIL, Status.FAIL]
    assert "rh-allow-sha1-signatures" in found[0].found
