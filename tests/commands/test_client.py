"""The addresses and tokens that commands use, and how they treat odd answers. Also: no control character reaches a
terminal."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.client.api import read_base, target
from receiver.commands.console import clean, clean_json, short_moment
from receiver.errors import ConfigurationError
from tests.commands.conftest import Ran, Run, run_command
from tests.commands.kit import REFUND, Server
from tests.http.kit import READER
from tests.kit.clock import T0
from tests.kit.webserver import WebServer, serving

EVIL = "\x1b]0;owned\x07\x9b31m\u202eevil\x7f"


def answer(status: str, body: str, kind: str = "application/json", *more: str) -> bytes:
    """An HTTP answer."""
    raw = body.encode()
    head = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(raw)}", *more)
    return "\r\n".join(head).encode() + b"\r\n\r\n" + raw


async def against(web: WebServer, *args: str, **environment: str) -> Ran:
    """The command against this web server."""
    variables = {"RECEIVER_URL": web.url, "RECEIVER_TOKEN": READER, **environment}
    return await asyncio.to_thread(run_command, *args, **variables)


def refund(**more: object) -> dict[str, object]:
    """A refund as the API might return it, with control characters in every text."""
    return {
        "refundId": f"S01{EVIL}",
        "account": EVIL,
        "refundAmount": {"amount": EVIL, "currencyCode": EVIL},
        "chargeId": EVIL,
        "statusDetails": {
            "state": f"Declined{EVIL}",
            "reasonCode": EVIL,
            "reasonDescription": EVIL,
            "lastUpdatedTimestamp": EVIL,
        },
        "revision": 1,
        "final": True,
        "changedAt": EVIL,
        "source": EVIL,
        **more,
    }


def is_safe(text: str) -> bool:
    """Nothing but printable characters and line ends."""
    return all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize("ascii_only", [True, False])
async def test_nothing_that_a_terminal_obeys_comes_through(ascii_only: bool) -> None:
    """Not in tables, not in JSON, whether the server escaped it or not; JSON keeps its meaning."""
    # JSON forbids bare characters below 0x20, so only the others can come unescaped.
    one = json.dumps(refund(), ensure_ascii=ascii_only).replace("\x1b", "\\u001b").replace("\x07", "\\u0007")
    page = f'{{"refunds": [{one}],\r\n\t"nextCursor": null}}'
    async with serving(answer("200 OK", page)) as web:
        for as_json in ((), ("--json",)):
            ran = await against(web, "refund", "list", *as_json)
            assert ran.code == 0, ran
            assert is_safe(ran.out + ran.err)
            assert "evil" in ran.out
        assert json.loads(ran.out) == json.loads(page)
    async with serving(answer("200 OK", one)) as web:
        for command in (("get", REFUND), ("get", REFUND, "--json")):
            ran = await against(web, "refund", *command)
            assert ran.code == 0
            assert is_safe(ran.out + ran.err)
            assert "evil" in ran.out


async def test_nor_in_messages() -> None:
    """A problem's detail is foreign text too, and may be long."""
    detail = json.dumps(f"{EVIL}\n{EVIL}\r" + "x" * 100_000)
    body = f'{{"detail": {detail}, "reason": {json.dumps(EVIL)}, "status": 400}}'
    async with serving(answer("400 Bad Request", body, "application/problem+json")) as web:
        ran = await against(web, "refund", "get", REFUND)
    assert (ran.code, ran.out) == (1, "")
    assert is_safe(ran.err)
    assert len(ran.err) < 10_000


VALUES = st.recursive(
    st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@settings(deadline=None)
@given(VALUES)
def test_clean_json_means_the_same(value: object) -> None:
    """Whatever the value: one safe line, and the same value."""
    body = json.dumps(value, indent="\t", ensure_ascii=False).encode("utf-8", "surrogatepass")
    text = clean_json(body)
    assert all(c.isprintable() for c in text)
    assert json.loads(text) == json.loads(body.decode("utf-8", "replace"))


@settings(deadline=None)
@given(st.text())
def test_clean_text_is_printable(text: str) -> None:
    """And printable text stays as it is."""
    assert clean(text).isprintable()
    assert not text.isprintable() or clean(text) == text


@pytest.mark.parametrize(
    ("given_answer", "code", "word"),
    [
        (answer("200 OK", "<html>Welcome</html>", "text/html"), 3, "not_the_api"),
        (answer("200 OK", '{"refunds": 1}'), 3, "not_the_api"),
        (answer("200 OK", "[" * 50_000), 3, "not_the_api"),
        (answer("301 Moved", "", "text/html", "Location: https://x.example/"), 2, "redirects are not followed"),
        (answer("404 Not Found", "<html>", "text/html"), 1, "Check --url."),
        (answer("502 Bad Gateway", "<html>", "text/html"), 3, "502"),
        (
            answer(
                "503 Service Unavailable",
                '{"detail": "Redis is away.", "reason": "store_unavailable", "requestId": "r-1"}',
                "application/problem+json",
            ),
            3,
            "Redis is away. [503 store_unavailable]\nreceiver: See request id r-1 in the service's log.",
        ),
        (
            answer(
                "422 Unprocessable Content",
                '{"detail": "Amazon says so.", "reason": "amazon_refused",'
                ' "amazon": {"status": 422, "reasonCode": "InvalidChargeStatus", "requestId": "A-1"}}',
                "application/problem+json",
            ),
            1,
            "[422 amazon_refused]\nreceiver: For Amazon Pay support: Amazon's request id is A-1.",
        ),
        (
            answer(
                "422 Unprocessable Content",
                '{"detail": "Amazon says so.", "reason": "amazon_refused", "amazon": {"requestId": null}}',
                "application/problem+json",
            ),
            1,
            "Amazon says so. [422 amazon_refused]\n",
        ),
        (answer("500 Oops", "[" * 50_000, "application/problem+json"), 3, "500"),
        (b"garbage\r\n\r\n", 3, "not HTTP"),
    ],
)
async def test_odd_answers(given_answer: bytes, code: int, word: str) -> None:
    """Each is a clear message and an exit code, never a traceback, and nothing of a stranger's body is repeated."""
    async with serving(given_answer) as web:
        ran = await against(web, "refund", "list")
    assert (ran.code, ran.out) == (code, ""), ran
    assert word in ran.err
    assert "html" not in ran.err
    assert "Traceback" not in ran.err


async def test_a_list_that_runs_in_circles_ends() -> None:
    """A cursor that leads to itself is not followed for ever."""
    async with serving(answer("200 OK", '{"refunds": [], "nextCursor": "x"}')) as web:
        ran = await against(web, "refund", "list", "--all")
        assert ran.code == 3
        assert len(web.requests) == 2


async def test_a_subscriber_that_may_have_been_added() -> None:
    """No answer is not the same as a refusal: the message says what to do."""
    async with serving(answer("503 Oops", "", "text/html")) as web:
        ran = await against(web, "subscriber", "add", "finance", "https://x.example/")
    assert ran.code == 3
    assert "may have been added. Repeat the command" in ran.err


def test_a_subscriber_that_was_certainly_not_added() -> None:
    """The call reached no server."""
    environment = {"RECEIVER_URL": "http://127.0.0.1:9", "RECEIVER_TOKEN": READER}
    ran = run_command("subscriber", "add", "finance", "https://x.example/", **environment)
    assert ran.code == 3
    assert "added all the same" not in ran.err


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "http://127.9.9.9",
        "http://[::1]:8000/",
        "HTTP://LocalHost:1/prefix/",
        "https://x.example",
    ],
)
def test_addresses_that_a_token_is_sent_to(url: str) -> None:
    """https anywhere, http on this machine; a path is a prefix of the API."""
    assert read_base(url, insecure=False) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://refunds.example",
        "http://10.0.0.1:8000",
        "http://127.0.0.1.example",
        "http://localhost.example",
        "http://0x7f000002",
        "http://[::ffff:10.0.0.1]",
    ],
)
def test_plain_http_to_elsewhere_is_refused(url: str) -> None:
    """The token could be read on the network; `insecure` allows it."""
    with pytest.raises(ConfigurationError, match="insecure=True"):
        read_base(url, insecure=False)
    assert read_base(url, insecure=True) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "refunds.example",
        "ftp://x.example",
        "https://",
        "https://user:password@x.example",
        "https://x.example/?a=b",
        "https://x.example/#a",
        "http://127.0.0.1\\@x.example",
        "http://127.0.0.1:8000/ x",
        "https://x.example:99999",
        "https://[::1",
        "https://ü.example",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    """Among them those that two programs read differently, and those with a password in them."""
    with pytest.raises(ConfigurationError) as caught:
        read_base(url, insecure=True)
    assert "password@" not in str(caught.value)


def test_target_escapes_and_leaves_out() -> None:
    """A + in a time stays a +; what is empty is not asked for."""
    assert target("refunds", "a/b?", since="2026-01-31T00:00:00+02:00", account="", limit=0) == (
        "/v1/refunds/a%2Fb%3F?since=2026-01-31T00%3A00%3A00%2B02%3A00"
    )


def test_the_token_comes_from_a_file_or_the_environment(server: Server, tmp_path: Path) -> None:
    """The file first; a file of several lines, none at all, and no token are wrong configuration, and never shown."""
    file = tmp_path / "token"
    file.write_text(f"{READER}\n")
    here = {"RECEIVER_URL": server.url, "RECEIVER_TOKEN": ""}
    assert run_command("refund", "list", "--token-file", str(file), **{**here, "RECEIVER_TOKEN": "wrong"}).code == 0
    assert run_command("refund", "list", **here, RECEIVER_TOKEN_FILE=str(file)).code == 0
    for text in ("", "hidden one\nhidden two", "hidden" * 10_000, "h\x00dden", "hiddén"):
        file.write_text(text)
        ran = run_command("refund", "list", "--token-file", str(file), **here)
        assert ran.code == 2, ran
        assert "hid" not in ran.err
    assert run_command("refund", "list", "--token-file", str(tmp_path / "none"), **here).code == 2
    ran = run_command("refund", "list", **here)
    assert ran.code == 2
    assert "RECEIVER_TOKEN" in ran.err
    assert run_command("refund", "list", "--token", READER, **here).code == 2


def test_a_wrong_token_is_exit_code_1(run: Run) -> None:
    """With a hint, and without the token."""
    ran = run("refund", "list", token="wrong-token")
    assert ran.code == 1
    assert "[401 token_unknown]" in ran.err
    assert "wrong-token" not in ran.err


def test_help_tells_the_exit_codes(run: Run) -> None:
    """Of every command."""
    for group, commands in (("refund", "get list history refresh watch"), ("subscriber", "add list show remove")):
        for command in commands.split():
            told = run(group, command, "--help").out
            assert "Exit codes: 0 done" in told
            assert "RECEIVER_URL" in told


def test_times_are_short_in_lists() -> None:
    """Without the year where it is clear; UTC."""
    assert short_moment("2025-10-09T08:53:20.000Z", T0) == "10-09 08:53"
    assert short_moment("2024-10-09T08:53:20.000Z", T0) == "2024-10-09"
    assert short_moment("soon\x1b", T0) == "soon\\x1b"
