"""A limit that many share: the one that holds the most gives way, and never to one that would hold as much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from receiver.runtime.shares import Shares


def test_the_greediest_gives_its_largest() -> None:
    shares = Shares[str](10)
    for holder, amount in (("a", 2), ("b", 5), ("c", 1)):
        shares.add("stranger", holder, amount)
    shares.add("amazon", "x", 2)
    assert (shares.total, shares.fits(1)) == (10, False)
    assert shares.greediest("amazon", 1) == ("stranger", "b")
    assert shares.greediest("new", 8) is None
    assert shares.greediest("stranger", 1) is None
    assert shares.largest(5) is None
    assert shares.largest(4) == ("stranger", "b")
    shares.remove("stranger", "b")
    shares.remove("stranger", "b")
    assert (shares.total, shares.of("stranger")) == (5, 3)


MOVES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(-1, 9)), max_size=40)


@given(MOVES)
def test_the_sums_are_those_of_the_holders(moves: list[tuple[str, int, int]]) -> None:
    """Whatever is taken and given back, in whatever order."""
    shares, held = Shares[int](1000), dict[tuple[str, int], int]()
    for source, holder, amount in moves:
        if amount < 0:
            shares.remove(source, holder)
            held.pop((source, holder), None)
        else:
            shares.add(source, holder, amount)
            held[source, holder] = held.get((source, holder), 0) + amount
        assert shares.total == sum(held.values())
        for each in "abc":
            assert shares.of(each) == sum(value for (name, _), value in held.items() if name == each)
    for source, holder in held:
        shares.remove(source, holder)
    assert (shares.total, shares._held, shares._sums) == (0, {}, {})
