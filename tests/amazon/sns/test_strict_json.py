"""JSON that has one meaning only, and one way to fail."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.amazon.sns import strict_json
from receiver.errors import Malformed

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (b" ", "not_json"),
        (b"{", "not_json"),
        (b'{"a": 1} {"a": 1}', "not_json"),
        (b'{"a": 1}\x00', "not_json"),
        (b"{'a': 1}", "not_json"),
        (b'{"a": "\n"}', "not_json"),
        (b'{"a": 1, "a": 2}', "duplicate_key"),
        (b'{"a": 1, "\\u0061": 1}', "duplicate_key"),
        (b'[{"b": {"a": 1, "a": 1}}]', "duplicate_key"),
        (b"NaN", "bad_number"),
        (b"[Infinity]", "bad_number"),
        (b'{"a": -Infinity}', "bad_number"),
        (b"1e999", "bad_number"),
        (b"-1e999", "bad_number"),
        (b"9" * 5000, "bad_number"),
        (b"0." + b"9" * 5000, "bad_number"),
        (b"[" * 2000, "too_deep"),
        (b'{"a":' * 100_000, "too_deep"),
        (b"[" * 17 + b"]" * 17, "too_deep"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b"\xff{}", "not_utf8"),
        (b'"\xed\xa0\x80"', "not_utf8"),
        (b'"\xc0\x80"', "not_utf8"),
        ('{"a": 1}'.encode("utf-16"), "not_utf8"),
        ('{"a": 1}'.encode("utf-16-le"), "not_json"),
        ('{"a": 1}'.encode("utf-32"), "not_utf8"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(body: bytes, reason: str) -> None:
    """Some parser accepts each of these, and reads it in its way; here all are refused."""
    with pytest.raises(Malformed) as caught:
        strict_json.parse(body)
    assert caught.value.reason == reason


def test_brackets_inside_strings_are_not_depth() -> None:
    """JSON inside JSON, as SNS sends it, does not count as nesting."""
    assert strict_json.parse(json.dumps({"Message": '[{"' * 500}).encode()) == {"Message": '[{"' * 500}
    assert strict_json.parse(b"[" * 16 + b"]" * 16) is not None
    assert strict_json.parse(b"[" + b"[]," * 5000 + b"[]]") is not None


@pytest.mark.timeout(5)
@pytest.mark.parametrize("body", [b"[" * 20 + b'"' + b'\\"' * 120_000, b"[" * 20 + b'"' * 250_001, b'["\\' * 80_000])
def test_unfinished_strings_cost_linear_time(body: bytes) -> None:
    """A quarter of a megabyte of quotes is judged at once."""
    with pytest.raises(Malformed):
        strict_json.parse(body)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_unreadable(body: bytes) -> None:
    """Nothing but `Malformed` escapes."""
    try:
        strict_json.parse(body)
    except Malformed:
        return


@given(st.text(st.sampled_from('{}[]":,\\u0dE+-. eNaI\x00\ud800é'), max_size=60))
def test_any_text_of_json_pieces_gives_a_value_or_unreadable(text: str) -> None:
    """The same for texts that look like JSON."""
    try:
        strict_json.parse_text(text)
    except Malformed:
        return


@given(JSON)
def test_plain_json_is_read_as_the_standard_library_reads_it(value: object) -> None:
    """What is unambiguous is read, whatever the escapes."""
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert strict_json.parse(text.encode()) == json.loads(text)


PIECES = [
    '"',
    "a",
    "\\",
    "\\u0061",
    "\\ud800",
    "\\n",
    "{",
    "}",
    ":",
    ",",
    " ",
    "1",
    "\x01",
    "é",
    '{"a":"b"',
    ',"a":"c"',
    '"}',
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_the_quick_way_says_what_the_slow_way_says(text: str) -> None:
    """Above all for duplicates, which the fast path finds by counting quotes."""

    def said(read: Callable[[str], object]) -> object:
        try:
            return read(text)
        except Malformed as error:
            return error.reason

    assert said(strict_json.parse_text) == said(strict_json._parse)
    assert said(lambda each: strict_json.parse(each.encode())) == said(strict_json._parse)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=4)), max_size=5))
def test_a_key_that_is_there_twice_is_seen_the_quick_way_too(pairs: list[tuple[str, str]]) -> None:
    """However the key is spelled."""
    body = "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs) + "}"
    if len({key for key, _ in pairs}) == len(pairs):
        assert strict_json.parse_text(body) == dict(pairs)
        return
    with pytest.raises(Malformed) as caught:
        strict_json.parse_text(body.replace('"a":', '"\\u0061":', 1))
    assert caught.value.reason == "duplicate_key"
