"""The command that the log and the doctor give for each damage does only what it says, in any shell."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from receiver.service import system_clock
from receiver.store import Store
from receiver.store.redis.damage import escaped, fix_of, unescaped
from receiver.store.redis.keys import Keys
from receiver.store.redis.pipeline import connect
from tests.kit.clock import ManualClock
from tests.store.makers import refund_id, subscriber

KEYS = Keys("us")
CHARGE = "S01-5105180-3221187-C056351"
NOT_TEXT = b"no\xff"
QUOTED = "o'; touch /tmp/x; '"


@pytest.fixture
async def store(redis: Any, valkey_url: str) -> AsyncIterator[Store]:
    store = Store(connect(valkey_url), clock=ManualClock(system_clock()))
    store.connection.accounts = ["us"]
    await store.of("us").subscribers.put(subscriber("finance"))
    yield store
    await store.close()


async def repaired(store: Store) -> list[str]:
    """Runs the command that is logged with each damage. Returns what was set aside."""
    with capture_logs() as logs:
        await store.inspection.inspect()
    found = []
    for line in [each for each in logs if each["event"] == "store.record_unreadable"]:
        program, verb, key, *rest = shlex.split(line["fix"])
        assert (program, verb, rest[0], len(rest)) == ("receiver", "repair", "--part", 2), line["fix"]
        assert line["fix"].isprintable()
        assert line["fix"].isascii()
        assert await store.inspection.repair(key, rest[1]), line["fix"]
        found.append(key)
    store.damage.records.clear()
    await store.inspection.inspect()
    assert not store.damage.records
    return found


@pytest.mark.parametrize("of", ["", "lane", "owed", "deaths"])
@pytest.mark.parametrize(
    "member", [NOT_TEXT, b"a'b", b"\\xff", b"--part '", b"a\x1b\n\xe2\x80\xae", b"$(id) `id`", b"x" * 900, b""]
)
async def test_a_member_of_any_bytes_is_set_aside(store: Store, redis: Any, of: str, member: bytes) -> None:
    key = KEYS(of, "finance") if of else KEYS("due")
    await redis.execute_command("ZADD", key, 5, member, 5, "1-1" if of else refund_id(0))
    assert await repaired(store) == [key]
    assert [each for each, _ in await redis.zrange(key, 0, -1, withscores=True)] == [
        b"1-1" if of else refund_id(0).encode()
    ]


@pytest.mark.parametrize("order", [QUOTED, "a\nb\x1b[31m", "\u202eback", "a\\x41"])
async def test_an_order_reference_of_any_kind_is_no_shell_command(store: Store, redis: Any, order: str) -> None:
    """A shop chooses it, and a person pastes the command."""
    await redis.execute_command("ZADD", KEYS("order", order), 5, NOT_TEXT)
    (key,) = await repaired(store)
    assert unescaped(key).decode() == KEYS("order", order)
    assert not await redis.exists(KEYS("order", order))
    assert len(shlex.split(fix_of(KEYS("order", order)))) == 3


@pytest.mark.parametrize(
    ("kind", "of"),
    [
        ("hints", ""),
        ("attempts", "finance"),
        ("copies", "finance"),
        ("dead", "finance"),
        ("subscribers", ""),
        ("backfill", ""),
        ("charge", CHARGE),
        ("disputes", "S01-1"),
        ("throttle", "get_refund"),
        ("unrecognized:details", ""),
    ],
)
async def test_a_field_of_any_bytes_is_set_aside(store: Store, redis: Any, kind: str, of: str) -> None:
    key = KEYS(kind, *([of] if of else []))
    await redis.hset(key, NOT_TEXT, b"{")
    assert await repaired(store) == [key]
    assert not await redis.hexists(key, NOT_TEXT)
    assert (await redis.hgetall(KEYS("aside", kind, *([of] if of else []))))[NOT_TEXT] == b"{"


@pytest.mark.parametrize(("kind", "of"), [("told", ""), ("history", refund_id(0)), ("trail", refund_id(0))])
async def test_a_line_of_a_list_is_set_aside_by_its_place(store: Store, redis: Any, kind: str, of: str) -> None:
    key = KEYS(kind, *([of] if of else []))
    await redis.rpush(key, b"\xff{")
    assert await repaired(store) == [key]
    assert not await redis.exists(key)
    assert await store.inspection.repair(key, "0") == ""
    assert await store.inspection.repair(key, "first") == ""


@pytest.mark.parametrize("raw", [b"", b"plain", b"\\", b"\\x41", bytes(range(256)), "é€".encode()])
def test_what_is_escaped_is_read_as_it_was(raw: bytes) -> None:
    assert unescaped(escaped(raw)) == raw
    assert escaped(raw).isascii()
    assert escaped(raw).isprintable()
