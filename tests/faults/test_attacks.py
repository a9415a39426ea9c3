"""The attacks, for two seconds each. `python -m tests.faults attacks --seconds 60` measures them on a quiet machine."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import perf_counter

import pytest

from receiver.receive.fetch_queue import AT_ONCE_OF_ONE, QUEUED_OF_ONE
from tests.faults.attacks import ATTACKS, NAMES, Attack, Decline, Outcome, room_for_files, service, suffer, town
from tests.kit.processes import desk, until
from tests.service.crash_kit import now
from tests.transport.test_transport_tls import HOST

SECONDS = 2.0
PART = 0.4
"""Of the attackers that the run has: other tests need the machine as well."""


def smaller(attack: Attack) -> Attack:
    """The same with fewer attackers."""
    return replace(attack, width=int(attack.width * PART), rate=min(attack.rate, 300), stored=attack.stored // 10)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_declines_are_told_and_readiness_answers_meanwhile(attack: Attack) -> None:
    """Every decline is delivered, every genuine notification is answered with 200 or 503 and accepted in the end,
    `/readyz` always answers 200, and a new certificate is accepted. Times are only measured on a quiet machine."""
    room_for_files()
    found = await suffer(smaller(attack), SECONDS)
    assert found.all_told, found
    assert found.answered, found
    assert found.always_ready, found
    assert bool(found.believed) == attack.rotates, found
    assert found.done["answers"] if attack.kind else found.looked_up, found


async def test_a_stop_waits_for_no_certificate() -> None:
    """What waits for a silent host gets 503 when the signal comes, which SNS takes for "later", and the service ends;
    without that it would wait 6 s for the fetches."""
    async with desk() as at, town(NAMES["silent"]) as place, service(place, at) as command:

        async def strange(number: int) -> int:
            url = f"https://{HOST}/SimpleNotificationService-{number:032x}.pem"
            topic = place.amazons[0].topic_arn
            return await place.post(place.signer.post_body(topic_arn=topic, timestamp_ms=now(), SigningCertURL=url))

        strangers = [asyncio.create_task(strange(number)) for number in range(AT_ONCE_OF_ONE + QUEUED_OF_ONE)]
        await until(lambda: len(place.host.server.requests) == AT_ONCE_OF_ONE, "the host is asked")
        began = perf_counter()
        assert await command.stop() == 0
        assert perf_counter() - began < 3
        assert await asyncio.gather(*strangers) == [503] * len(strangers)
        reasons = [line["reason"] for line in command.logged("ipn.answered")]
        assert reasons == ["stopping"] * len(strangers)


def outcome(**parts: object) -> Outcome:
    """One that holds, but for these parts."""
    good: dict[str, object] = {
        "declines": {"a": Decline(posted=100.0, taken=100.1, told=100.2)},
        "ready": [(200, 0.1)],
    }
    found = Outcome(ATTACKS[0])
    for name, value in {**good, **parts}.items():
        setattr(found, name, value)
    found.answers.update({200: 1})
    return found


def test_what_holds() -> None:
    """All delivered in time, always ready."""
    assert outcome().holds


@pytest.mark.parametrize(
    "parts",
    [
        {"declines": {}},
        {"declines": {"a": Decline(posted=100.0, taken=100.1)}},
        {"declines": {"a": Decline(posted=100.0, told=100.1)}},
        {"declines": {"a": Decline(posted=100.0, taken=100.1, told=105.2)}},
        {"ready": []},
        {"ready": [(200, 0.1), (503, 0.1)]},
        {"ready": [(200, 1.1)]},
        {"rotated": 90.0},
        {"rotated": 90.0, "believed": 100.1},
    ],
)
def test_what_fails(parts: dict[str, object]) -> None:
    """A decline that is lost or late, a notification that is not taken, a look that is refused or late, and a new
    certificate that is believed late or never."""
    assert not outcome(**parts).holds


def test_another_answer_to_a_genuine_notification_fails() -> None:
    """Also a connection that is cut."""
    for status in (0, 400, 403, 500):
        found = outcome()
        found.answers[status] += 1
        assert not found.holds
