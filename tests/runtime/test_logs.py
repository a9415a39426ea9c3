"""What a log line looks like, and what never gets into one."""

from __future__ import annotations

import io
import json
import logging
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from receiver.runtime import logs


class Encoded(io.TextIOWrapper):
    """A stream like standard error: text over bytes."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "utf-8", write_through=True)

    def getvalue(self) -> str:
        """What was written, in either way."""
        self.flush()
        return cast(io.BytesIO, self.buffer).getvalue().decode()


@pytest.fixture(params=[io.StringIO, Encoded])
def stream(request: pytest.FixtureRequest) -> Iterator[Any]:
    root = logging.getLogger()
    before = root.handlers, root.level
    yield request.param()
    structlog.reset_defaults()
    root.handlers, root.level = before


def line(stream: Any, *, level: str = "info", **values: Any) -> dict[str, Any]:
    """The one line that an event with these values becomes."""
    logs.configure(level=level, format="json", stream=stream)
    structlog.get_logger().info("thing.happened", **values)
    (text,) = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_line_is_json_with_time_and_level(stream: Any) -> None:
    """A line has the event, the level, an ISO time in UTC, and the values."""
    found = line(stream, refund_id="S01-1", count=3)
    assert (found["event"], found["level"], found["refund_id"], found["count"]) == (
        "thing.happened",
        "info",
        "S01-1",
        3,
    )
    assert found["timestamp"].endswith("Z")


SENSITIVE = "authorization Authorization secret client_secret token private_key privateKey signature password cookie"


@pytest.mark.parametrize("key", SENSITIVE.split())
def test_what_smells_of_a_secret_is_blackened(stream: Any, key: str) -> None:
    """By its name, at any depth."""
    values: dict[str, Any] = {key: "hunter2", "headers": {key: "hunter2"}, "many": [{key: ["hunter2"]}]}
    found = line(stream, **values)
    assert "hunter2" not in json.dumps(found)
    assert found[key] == "[redacted]"


def test_harmless_namesakes_are_shown(stream: Any) -> None:
    """Who called, and which version of the signature, are no secrets."""
    found = line(stream, token_name="orders", signature_version=2)
    assert (found["token_name"], found["signature_version"]) == ("orders", 2)


def test_passwords_in_addresses_and_bytes_are_not_shown(stream: Any) -> None:
    """An address keeps its host; of bytes only their number is said."""
    found = line(stream, url="rediss://user:hunter2@cache.example:1/0", body=b"hunter2", mail="a@b.example")
    assert found["url"] == "rediss://[redacted]@cache.example:1/0"
    assert found["body"] == "<7 bytes>"
    assert found["mail"] == "a@b.example"


def test_long_values_are_cut(stream: Any) -> None:
    """No value floods the log."""
    assert len(line(stream, text="x" * 100_000)["text"]) < 2_100


@pytest.mark.parametrize("value", ["\ud800", object(), {1: 2}, {"a": float("nan")}, {"\ud800": 1}, 1 << 200, {1, 2}])
def test_any_value_gives_a_line_of_json(stream: Any, value: object) -> None:
    """Logging never raises, and never writes what a reader of JSON lines would choke on."""
    assert line(stream, value=value)["event"] == "thing.happened"


def test_one_value_cannot_forge_a_second_line(stream: Any) -> None:
    """Line ends in values are escaped."""
    assert line(stream, text='x\n{"event": "forged"}')["event"] == "thing.happened"


def test_levels_are_filtered(stream: Any) -> None:
    """Below the level nothing is written."""
    logs.configure(level="warning", format="json", stream=stream)
    structlog.get_logger().info("quiet")
    assert stream.getvalue() == ""


def test_exceptions_come_with_their_traceback_on_one_line(stream: Any) -> None:
    """A traceback is a value of the line."""
    logs.configure(format="json", stream=stream)
    try:
        raise KeyError("x")
    except KeyError:
        structlog.get_logger().exception("broken")
    (text,) = stream.getvalue().splitlines()
    assert "Traceback" in json.loads(text)["exception"]


def test_libraries_log_in_the_same_form(stream: Any) -> None:
    """What uvicorn or asyncio say by the standard module is JSON too, with their name."""
    logs.configure(format="json", stream=stream)
    logging.getLogger("uvicorn.error").error("it %s", "broke")
    logging.getLogger("uvicorn.error").info("chatter")
    (text,) = stream.getvalue().splitlines()
    found = json.loads(text)
    assert (found["event"], found["logger"], found["level"]) == ("it broke", "uvicorn.error", "error")


def test_request_values_are_merged(stream: Any) -> None:
    """Values bound for a request are on every line of it."""
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        assert line(stream)["request_id"] == "r1"


def test_text_on_a_terminal(stream: Any) -> None:
    """For people there are lines to read."""
    logs.configure(format="text", stream=stream)
    structlog.get_logger().info("thing.happened", secret="hunter2")
    text = stream.getvalue()
    assert "thing.happened" in text
    assert "hunter2" not in text
    assert not text.startswith("{")


CONTROLS = [*map(chr, range(32)), *map(chr, range(127, 160))]
DIRECTIONS = list("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
UNSEEN = list("\u00ad\u180e\u200b\u200c\u200d\u2028\u2029\u2060\ufeff\ufff9\U000e0041")
OBEYED = [*CONTROLS, *DIRECTIONS, *UNSEEN]
FORGED = "2026-01-01T00:00:00Z [info     ] forged"


def spoken(stream: Any, form: str, hostile: str) -> list[str]:
    """The lines of a log that contain an untrusted text in every place."""
    logs.configure(format=form, stream=stream)
    log = structlog.get_logger()
    log.info(f"event{hostile}", **{f"key{hostile}": 1, "plain": hostile, "nested": {hostile: [hostile]}})
    log.info("raw", client=f"203.0.113.7{hostile}", odd=Exception(hostile), stack=hostile)
    logging.getLogger(f"uvicorn.error{hostile}").error("it %s", hostile, extra={"more": hostile})
    try:
        try:
            raise KeyError(hostile)
        except KeyError as error:
            error.add_note(hostile)
            raise ExceptionGroup(hostile, [ValueError(hostile)]) from error
    except ExceptionGroup:
        log.exception("broken")
        logging.getLogger("asyncio").exception("broken too")
    text: str = stream.getvalue()
    assert text.endswith("\n")
    return text.removesuffix("\n").split("\n")


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("character", OBEYED, ids=lambda character: f"{ord(character):04x}")
def test_no_character_is_one_that_a_terminal_obeys(stream: Any, form: str, character: str) -> None:
    """Nor one that hides, reverses or ends a line, wherever it comes from; its escape is readable."""
    lines = spoken(stream, form, f"a{character}b")
    assert [line for line in lines if not line.isprintable()] == []
    escape = ascii(character)[1:-1] if form == "text" else f"\\u{character.encode('utf-16-be')[:2].hex()}"
    short = {"\b": r"\b", "\t": r"\t", "\n": r"\n", "\f": r"\f", "\r": r"\r"} if form == "json" else {}
    assert f"a{short.get(character, escape)}" in lines[0]
    if form == "json":
        assert all(json.loads(line) for line in lines)
        assert json.loads(lines[0])["plain"] == f"a{character}b"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x85", "\u2028", "\v", "\f"])
def test_no_text_forges_a_line_of_text(stream: Any, end: str) -> None:
    """Every line that begins at the margin is one event of ours; what is below is indented."""
    lines = spoken(stream, "text", f"x{end}{FORGED}{end}Traceback (most recent call last):")
    margin = [line for line in lines if not line.startswith("    ")]
    assert len(margin) == 5
    assert [line[: len("2026-01-01T")].endswith("T") for line in margin] == [True] * 5
    assert not any(line.strip().startswith(FORGED) for line in margin)
    assert stream.getvalue().count("KeyError: ") == 2


def test_the_message_of_an_exception_is_one_line(stream: Any) -> None:
    """It cannot look like a frame of the traceback, nor like the next exception."""
    logs.configure(format="text", stream=stream)
    try:
        raise ValueError('a\n\nDuring handling of it\n  File "x", line 1')
    except ValueError:
        structlog.get_logger().exception("broken")
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(["the event", "Traceback", "File", "raise", "ValueError"])
    assert lines[-1] == r'    ValueError: a\n\nDuring handling of it\n  File "x", line 1'


def test_harmless_text_stands_as_it_is(stream: Any) -> None:
    """Other scripts are read, and a text with spaces is one value."""
    logs.configure(format="text", stream=stream)
    structlog.get_logger().info("größe", name="日本", text="a b", pair="x level=error", number=1.5, none=None)
    text = stream.getvalue()
    for each in ("größe", " name=日本", " text='a b'", " pair='x level=error'", " number=1.5", " none=None"):
        assert each in text


NAMES = st.sampled_from(["refund_id", "token", "token_name", "client_secret", "accounts", "n"])
WORDS = st.text(max_size=20) | st.sampled_from(["redis://a:hunter2@b/", "x" * 1_999, "y" * 2_001, "\x7f", "\x9b"])
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.binary(max_size=9)


@given(st.dictionaries(NAMES, VALUES | st.lists(VALUES).map(tuple) | st.dictionaries(NAMES, VALUES)))
def test_a_plain_line_is_what_any_line_would_be(values: dict[str, Any]) -> None:
    """The short way for lines without anything to redact, and the way for all lines, write the same."""
    event = {"event": "thing.happened", **values}
    plain = logs._plain_or_line(None, "info", dict(event))
    found = plain if isinstance(plain, bytes) else logs._line(plain)
    assert found == logs.to_json(logs.redact(None, "info", event)) + b"\n"
    assert b"hunter2" not in found


def run(program: str) -> list[bytes]:
    """What a program writes to its log, piece by piece."""
    setup = "import asyncio, os, threading, structlog; from receiver.runtime import logs\n"
    observed = "logs._Leaky.write = lambda self, text: os.write(1, b'%d:' % len(text) + text)\n"
    start = "logs.configure(format='json'); log = structlog.get_logger()\n"
    ended = subprocess.run(
        [sys.executable, "-c", setup + observed + start + program], capture_output=True, check=True, timeout=30
    )
    found, rest = list[bytes](), ended.stdout
    while rest:
        size, _, rest = rest.partition(b":")
        found.append(rest[: int(size)])
        rest = rest[int(size) :]
    return [piece for piece in found if piece]


def test_lines_of_one_turn_are_written_together() -> None:
    """In pieces of at most a page; those of the next turn are another piece."""
    program = (
        "async def main():\n"
        "    for turn in range(2):\n"
        "        for number in range(3): log.info('many', number=number)\n"
        "        await asyncio.sleep(0)\n"
        "    for number in range(100): log.info('many', text='x' * 100)\n"
        "asyncio.run(main())\n"
    )
    pieces = run(program)
    counts = [piece.count(b"\n") for piece in pieces]
    assert counts[:2] == [3, 3]
    assert sum(counts) == 106
    assert max(map(len, pieces)) <= logs.AT_ONCE
    assert len(pieces) < 10
    assert all(piece.endswith(b"\n") for piece in pieces)


@pytest.mark.parametrize(
    "end", ["asyncio.get_running_loop().stop()", "raise SystemExit", "raise KeyboardInterrupt", "return"]
)
def test_a_line_is_written_before_the_process_ends(end: str) -> None:
    """Also by a loop that has no further turn."""
    program = (
        "async def main():\n"
        "    log.info('last')\n"
        f"    {end}\n"
        "loop = asyncio.new_event_loop()\n"
        "try: loop.run_until_complete(main())\n"
        "except BaseException: pass\n"
    )
    (piece,) = run(program)
    assert json.loads(piece)["event"] == "last"


def test_threads_lose_no_line() -> None:
    """They write at once, while the loop collects."""
    program = (
        "def many():\n"
        "    for number in range(500): log.info('thread')\n"
        "async def main():\n"
        "    threads = [threading.Thread(target=many) for _ in range(3)]\n"
        "    for each in threads: each.start()\n"
        "    for _ in range(500):\n"
        "        log.info('loop')\n"
        "        await asyncio.sleep(0)\n"
        "    for each in threads: each.join()\n"
        "asyncio.run(main())\n"
    )
    lines = b"".join(run(program)).splitlines()
    assert sorted(json.loads(line)["event"] for line in lines) == ["loop"] * 500 + ["thread"] * 1500


def test_standard_output_stays_clean() -> None:
    """Log lines go to standard error, as bytes; standard output has only what a command prints."""
    program = (
        "import logging, structlog; from receiver.runtime import logs; logs.configure();"
        "structlog.get_logger().info('a', umlaut='ü'); logging.getLogger('x').warning('b'); print('output')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert ended.stdout == b"output\n"
    assert [json.loads(text)["event"] for text in ended.stderr.splitlines()] == ["a", "b"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_log_that_cannot_be_written_harms_nobody(form: str) -> None:
    """On a disk without room lines are lost, and the code that logs goes on."""
    program = (
        "import logging, structlog; from receiver.runtime import logs;"
        f"logs.configure(format={form!r});"
        "[structlog.get_logger().info('a' * 100, number=number) for number in range(1000)];"
        "logging.getLogger('x').warning('b'); print('output')"
    )
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, check=False)
    assert ended.stdout == b"output\n"


@pytest.mark.parametrize("logger", ["structlog.get_logger()", "logging.getLogger()"])
def test_a_reader_that_reads_no_more_stops_nobody(logger: str) -> None:
    """What does not fit into the pipe is lost; as soon as the pipe is read, lines come again, and whole."""
    program = (
        "import logging, sys, structlog; from receiver.runtime import logs\n"
        "logs.PATIENCE = 0.05; logs.configure(format='json')\n"
        f"for _ in range(3000): {logger}.warning('thing.happened')\n"
        "print('gone on', flush=True); sys.stdin.readline()\n"
        f"{logger}.warning('thing.again')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as ended:
        assert ended.stdin is not None
        assert ended.stdout is not None
        assert ended.stderr is not None
        try:
            assert select.select([ended.stdout], [], [], 20)[0], "it stands still"
            first = os.read(ended.stderr.fileno(), 1 << 20)
            ended.stdin.write(b"\n")
            ended.stdin.flush()
            lines = (first + ended.stderr.read()).splitlines()
        finally:
            ended.kill()
    assert [json.loads(each)["event"] for each in lines[-2:]] == ["thing.happened", "thing.again"]
    assert 100 < len(lines) < 3000
