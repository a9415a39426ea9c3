"""`receiver fps refund` against the simulator, on loopback: the legacy refund of Flexible Payments."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TypeVar

import pytest
import typer
from structlog.testing import capture_logs
from typer.testing import CliRunner

from receiver.commands.fps import fps
from receiver.simulator.app import Simulator
from receiver.simulator.fps.checks import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from tests.commands.conftest import Ran
from tests.kit.shared import keys
from tests.kit.webserver import serving

T1, RESERVED = "14GKSIMULATOR0000000000000000000001", "14GKSIMULATOR0000000000000000000003"
BOUND = 60.0

T = TypeVar("T")


class Stage:
    """Servers in a separate event loop, because each command runs its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()

    def enter(self, server: AbstractAsyncContextManager[T]) -> T:
        return asyncio.run_coroutine_threadsafe(self._stack.enter_async_context(server), self._loop).result(BOUND)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result(BOUND)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(BOUND)
        self._loop.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    """The servers share this process with the command, so their log would appear in its output."""
    found = Stage()
    with capture_logs():
        yield found
        found.close()


@pytest.fixture
def amazon(stage: Stage) -> Simulator:
    """A simulator whose refunds are settled at once if their cents select that, and otherwise not during the test."""
    return stage.enter(Simulator(keys=keys(), outcome_delay=3600))


def command(*args: str, **environment: str | None) -> Ran:
    app = typer.Typer()
    app.add_typer(fps.app, name="fps")
    known = {"COLUMNS": "80", "FPS_ACCESS_KEY_ID": ACCESS_KEY_ID, "FPS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}
    given = {"FPS_SECRET_FILE": None, "FPS_ENDPOINT": None, **known, **environment}
    result = CliRunner().invoke(app, ["fps", "refund", *args], env=given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def run(amazon: Simulator) -> Callable[..., Ran]:
    """The command against the simulator, with its access key."""
    return lambda *args, **more: command(*args, **{"FPS_ENDPOINT": amazon.fps_endpoint, **more})


def test_a_refund_is_printed_as_json_with_all_that_a_ledger_needs(amazon: Simulator, run: Callable[..., Ran]) -> None:
    """In Amazon Pay's spelling, then FPS's own words."""
    ran = run(T1, "w908dnwf092987", "--amount", "14.00", "--description", "Größe 3", "--json")
    assert ran.code == 0, ran
    found = json.loads(ran.out)
    assert found["statusDetails"].pop("lastUpdatedTimestamp")
    assert found["fps"].pop("requestId")
    assert found == {
        "refundId": "w908dnwf092987",
        "chargeId": T1,
        "refundAmount": {"amount": "14.00", "currencyCode": "USD"},
        "statusDetails": {"state": "RefundInitiated", "reasonCode": None, "reasonDescription": None},
        "fps": {
            "refundTransactionReference": "w908dnwf092987",
            "transactionId": T1,
            "transactionStatus": "Pending",
        },
    }
    assert "does not record or track this refund" in ran.err
    refund = amazon.fps_refunds[0]
    assert (refund.order.description, refund.amount.text) == ("Größe 3", "14.00")


def test_the_table_shows_state_and_amazons_word(run: Callable[..., Ran]) -> None:
    """A refund that failed is an answer, and no money paid: exit code 5, as through the service."""
    ran = run(T1, "R-1", "--amount", "1.07")
    assert ran.code == 5, ran
    lines = [line.split(maxsplit=1) for line in ran.out.splitlines()]
    assert ["Refund", "R-1"] in lines
    assert ["State", "Declined"] in lines
    assert "FPS's word   Failure" in ran.out
    assert ["Amount", "1.07 USD"] in lines


def test_without_an_amount_all_that_is_left_is_refunded(amazon: Simulator, run: Callable[..., Ran]) -> None:
    """FPS does not say how much that was, so the JSON has no amount."""
    ran = run(T1, "R-1", "--json")
    assert (ran.code, json.loads(ran.out)["refundAmount"]) == (0, None)
    assert amazon.fps_refunds[0].amount.text == "100.00"
    assert "the whole remaining amount" in run(T1, "R-1").out


def test_the_same_command_again_is_the_same_refund(amazon: Simulator, run: Callable[..., Ran]) -> None:
    """Known by its reference; with other values it is refused."""
    for _ in range(2):
        assert run(T1, "R-1", "--amount", "1.00").code == 0
    assert len(amazon.fps_refunds) == 1
    ran = run(T1, "R-1", "--amount", "2.00")
    assert (ran.code, ran.out) == (1, "")
    assert "[DuplicateRequest]" in ran.err
    assert "Amazon's request id: " in ran.err


@pytest.mark.parametrize(
    "args",
    [
        ("--api-version", "2008-09-17"),
        ("--api-version", "2010-08-28", "--policy", "MasterAndMarketplaceTxn", "--description", "d"),
        ("--signature-method", "HmacSHA1"),
    ],
)
def test_every_version_and_method_is_accepted_by_the_other_side(run: Callable[..., Ran], args: tuple[str, ...]) -> None:
    """The simulator checks names and signatures by itself."""
    assert run(T1, "R-1", *args).code == 0


def test_amazons_refusal_is_told_with_its_code(run: Callable[..., Ran]) -> None:
    """Exit code 1."""
    ran = run(RESERVED, "R-1")
    assert (ran.code, ran.out) == (1, "")
    assert "[InvalidTransactionState]" in ran.err
    ran = run(T1, "R-1", FPS_SECRET_ACCESS_KEY="another-secret")
    assert ran.code == 1
    assert "[SignatureDoesNotMatch]" in ran.err
    assert "another-secret" not in ran.err


def test_the_secret_can_come_from_a_file(amazon: Simulator, run: Callable[..., Ran], tmp_path: Path) -> None:
    """Which goes before the variable."""
    path = tmp_path / "secret"
    path.write_text(f"{SECRET_ACCESS_KEY}\n")
    assert run(T1, "R-1", "--amount", "1", "--secret-file", str(path), FPS_SECRET_ACCESS_KEY="wrong").code == 0
    assert run(T1, "R-2", "--amount", "1", FPS_SECRET_FILE=str(path), FPS_SECRET_ACCESS_KEY=None).code == 0
    assert len(amazon.fps_refunds) == 2
    ran = run(T1, "R-3", "--secret-file", str(tmp_path / "none"))
    assert (ran.code, "--secret-file" in ran.err) == (2, True)


def test_every_part_of_the_key_that_is_missing_is_named_at_once(run: Callable[..., Ran]) -> None:
    """Exit code 2, and nothing is sent."""
    ran = run(T1, "R-1", FPS_ACCESS_KEY_ID=None, FPS_SECRET_ACCESS_KEY=None)
    assert ran.code == 2
    assert "Set FPS_ACCESS_KEY_ID" in ran.err
    assert "Set FPS_SECRET_ACCESS_KEY" in ran.err
    ran = run(T1, "R-1", FPS_ACCESS_KEY_ID="short")
    assert (ran.code, "AWSAccessKeyId" in ran.err) == (2, True)
    ran = run(T1, "R-1", FPS_SECRET_ACCESS_KEY="two words")
    assert (ran.code, "two words" in ran.err) == (2, False)


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("a/b", "R-1"), "TransactionId"),
        ((T1, "R/1"), "RefundTransactionReference"),
        ((T1, "x" * 65), "RefundTransactionReference"),
        ((T1, "R-1", "--amount", ""), "amount"),
        ((T1, "R-1", "--amount", "0"), "RefundAmount.Value"),
        ((T1, "R-1", "--amount", "1.001"), "RefundAmount.Value"),
        ((T1, "R-1", "--amount", "-1"), "amount"),
        ((T1, "R-1", "--amount", "1e3"), "amount"),
        ((T1, "R-1", "--amount", "1", "--currency", "EUR"), "RefundAmount.CurrencyCode"),
        ((T1, "R-1", "--amount", "1", "--currency", "usd"), "currency"),
        ((T1, "R-1", "--description", "x" * 161), "description"),
        ((T1, "R-1", "--policy", "All"), "policy"),
        ((T1, "R-1", "--api-version", "2007-01-08"), "version"),
    ],
)
def test_wrong_values_are_refused_here(
    amazon: Simulator, run: Callable[..., Ran], args: tuple[str, ...], named: str
) -> None:
    """Exit code 2, the parameter named, nothing sent."""
    ran = run(*args)
    assert (ran.code, ran.out) == (2, "")
    assert named in ran.err
    assert list(amazon.calls) == []


@pytest.mark.parametrize(
    "endpoint", ["http://fps.example/", "fps.example", "https://fps.example/?a=1", "http://127.0.0.1.example/"]
)
def test_an_endpoint_that_is_not_safe_is_refused(endpoint: str) -> None:
    """Plain http to this machine only."""
    ran = command(T1, "R-1", "--endpoint", endpoint)
    assert (ran.code, "--endpoint" in ran.err) == (2, True)


def test_without_an_endpoint_the_service_is_called() -> None:
    """It needs a token, and has its own version and signature method."""
    ran = command(T1, "R-1", RECEIVER_TOKEN=None, RECEIVER_TOKEN_FILE=None)
    assert (ran.code, "No token" in ran.err) == (2, True)
    ran = command(T1, "R-1", "--api-version", "2010-08-28", RECEIVER_TOKEN="token")
    assert (ran.code, "--endpoint" in ran.err) == (2, True)


def test_where_nobody_answers_nothing_was_sent(stage: Stage) -> None:
    """Exit code 3, and the message says so."""
    amazon = stage.enter(Simulator(keys=keys()))
    endpoint = amazon.fps_endpoint
    asyncio.run_coroutine_threadsafe(amazon.stop(), stage._loop).result(BOUND)
    ran = command(T1, "R-1", "--endpoint", endpoint)
    assert ran.code == 3
    assert "Nothing was sent" in ran.err


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n<half/>",
        b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        b"not HTTP at all\r\n\r\n",
    ],
)
def test_an_answer_that_tells_nothing_leaves_the_outcome_open(stage: Stage, answer: bytes) -> None:
    """Exit code 3, and the advice to repeat it with the same reference; the signed order is not shown."""
    server = stage.enter(serving(answer))
    ran = command(T1, "R-1", "--endpoint", f"{server.url}/fps/")
    assert (ran.code, ran.out) == (3, "")
    assert "same REFERENCE" in ran.err
    assert "Signature" not in ran.err
    assert len(server.requests) == 1


def test_a_throttle_is_not_a_refund(stage: Stage) -> None:
    """429: exit code 3, nothing happened."""
    server = stage.enter(serving(b"HTTP/1.1 429 Slow\r\ncontent-length: 0\r\n\r\n"))
    ran = command(T1, "R-1", "--endpoint", f"{server.url}/")
    assert (ran.code, "Nothing was refunded" in ran.err) == (3, True)


def test_the_help_says_plainly_that_the_service_is_gone() -> None:
    """Of the group and of the command; and the secret is no option."""
    app = typer.Typer()
    app.add_typer(fps.app, name="fps")
    for args in (["fps", "--help"], ["fps", "refund", "--help"]):
        text = " ".join(CliRunner().invoke(app, args, env={"COLUMNS": "200"}).stdout.split())
        assert "LEGACY" in text
        assert "retired" in text
        assert "2015" in text
    assert "--secret-access-key" not in text
