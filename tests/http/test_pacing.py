"""The bound on what one turn of the loop takes on."""

from __future__ import annotations

import asyncio

from receiver.http.ipn.pacing import PerTickLimit


async def turn_of_each(turns: PerTickLimit, count: int, cancelled: frozenset[int] = frozenset()) -> dict[int, int]:
    """Caller → the turn of the loop in which it is admitted, if all come in the first one and some are cancelled right
    after it."""
    loop, number, found = asyncio.get_running_loop(), 0, dict[int, int]()

    def tick() -> None:
        nonlocal number
        number += 1
        loop.call_soon(tick)

    async def one(name: int) -> None:
        await turns.enter()
        found[name] = number

    tasks = [loop.create_task(one(name)) for name in range(count)]
    loop.call_soon(tick)
    await asyncio.sleep(0)
    for name in cancelled:
        tasks[name].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


async def test_no_more_than_the_bound_in_one_turn_and_in_the_order_of_their_coming() -> None:
    found = await turn_of_each(PerTickLimit(4), 11)
    assert list(found) == list(range(11))
    by_turn = [list(found.values()).count(number) for number in sorted(set(found.values()))]
    assert by_turn == [4, 4, 3]


async def test_within_the_bound_nobody_waits() -> None:
    assert set((await turn_of_each(PerTickLimit(4), 4)).values()) == {0}


async def test_who_is_cancelled_takes_nobodys_place() -> None:
    found = await turn_of_each(PerTickLimit(4), 12, frozenset({5, 6, 7}))
    assert list(found) == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    by_turn = [list(found.values()).count(number) for number in sorted(set(found.values()))]
    assert by_turn == [4, 4, 1]


async def test_a_later_turn_has_the_whole_bound_again() -> None:
    turns = PerTickLimit(2)
    assert len(await turn_of_each(turns, 5)) == 5
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert set((await turn_of_each(turns, 2)).values()) == {0}


async def test_who_comes_while_others_wait_does_not_overtake_them() -> None:
    turns, order = PerTickLimit(1), list[str]()

    async def one(name: str) -> None:
        await turns.enter()
        order.append(name)
        if name == "second":
            await one("late")

    await asyncio.gather(one("first"), one("second"), one("third"))
    assert order == ["first", "second", "third", "late"]
