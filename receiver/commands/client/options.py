"""Command. What all API commands share: options, exit codes, and how they end."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from receiver.client.api import decode, read_base, read_token, target
from receiver.client.client import Client
from receiver.commands.client.messages import exit_code, explain
from receiver.commands.console import emit_json, now_ms, say, silence
from receiver.commands.signals import Terminated, in_order
from receiver.errors import ConfigurationError, Malformed, ReceiverError
from receiver.exchange import Response
from receiver.ledger.refund import REFUND_ID
from receiver.ledger.timestamps import format_rfc3339, milliseconds, parse_any_time, parse_span

DEFAULT_URL = "http://127.0.0.1:8000"
URL_NAMES = "--url or RECEIVER_URL"
MOST_FILE = 16 * 1024
INTERRUPTED, BROKEN_PIPE = 128 + 2, 128 + 13

EPILOG = """\
Results go to standard output, messages to standard error. Pass the token in RECEIVER_TOKEN or a file: other users of \
the machine can see the command line.

Exit codes: 0 done · 1 not found or refused (4xx) · 2 wrong usage or configuration · 3 the service cannot be reached \
or failed (5xx) · 130 ended by Ctrl-C · 129, 143 ended by SIGHUP, SIGTERM · 141 the reader of the output went away."""

P = ParamSpec("P")
T = TypeVar("T")

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="RECEIVER_URL",
        help="Address of the service. Plain http only to this machine, unless --insecure.",
        rich_help_panel="Service",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="RECEIVER_TOKEN_FILE",
        help="File with the bearer token. Default: the token in RECEIVER_TOKEN.",
        rich_help_panel="Service",
    ),
]
Account = Annotated[
    str,
    typer.Option(
        "--account",
        help="Only this account (its name in the service's settings). Default: all the token may see.",
        rich_help_panel="Service",
        show_default=False,
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help="Allow sending the token over plain http to another machine. Anyone on the network can read it.",
        rich_help_panel="Service",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's JSON instead of a table, one line per answer.")]


def of_form(pattern: re.Pattern[str], problem: str) -> Callable[[str | None], str | None]:
    """A callback of an option or argument, which raises `typer.BadParameter` for a text of another form."""

    def checked(text: str | None) -> str | None:
        if text is not None and not pattern.fullmatch(text):
            raise typer.BadParameter(problem)
        return text

    return checked


checked_id = of_form(REFUND_ID, "a refund id is 1 to 64 letters, digits and hyphens.")


def read_since(text: str) -> str:
    """A time that the API understands, from a time, a day, or a span that counts back from now."""
    text = text.strip()
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            text = f"{text}T00:00:00Z"
        if re.match(r"\d{4}-?\d\d-?\d\d[Tt ]", text):
            return format_rfc3339(max(parse_any_time(text), 0))
        return format_rfc3339(max(now_ms() - milliseconds(parse_span(text)), 0)) if text else ""
    except (Malformed, ValueError) as error:
        why = f"{error} " if "unit" in str(error) else ""
        shape = "2h, 7d, 2026-01-31, 2026-01-31T12:00:00Z or 20260131T120000Z"
        raise typer.BadParameter(f"{why}Give a span or a time such as {shape}.") from None


RefundId = Annotated[str, typer.Argument(metavar="ID", callback=checked_id, help="Amazon's id of the refund.")]


@dataclass(frozen=True, slots=True)
class ServiceCall:
    """How one command reaches the service, and how it shows the answers."""

    base: str
    token: str = field(repr=False)
    """Empty if none was given."""
    account: str
    json: bool

    def run(self, action: Callable[[Client], Awaitable[T]]) -> T:
        """Run the action with the API, on new connections. Raises `ConfigurationError` if there is no token."""
        if not self.token:
            raise ConfigurationError(["No token. Set RECEIVER_TOKEN or use --token-file."])

        async def do() -> T:
            async with Client(self.base, token=self.token, account=self.account, insecure=True) as client:
                return await action(client)

        return asyncio.run(in_order(do()))

    def ask(
        self, method: str, *path: str, body: Mapping[str, Any] | None = None, wait: int = 0, **query: str | int
    ) -> Response:
        """The answer to one call for the account; `path` and `query` as in `target`, the rest as in `Api.call`."""
        place = target(*path, **query, account=self.account)
        return self.run(lambda api: api.call(method, place, body=body, wait=wait))

    def show(self, answer: Response, kind: type[T], emit: Callable[[T], object]) -> T:
        """Print the answer, as JSON or by `emit`. Returns it decoded."""
        found = decode(answer, kind)
        if self.json:
            emit_json(answer.body)
        else:
            emit(found)
        return found


def reach(
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    account: Account = "",
    insecure: Insecure = False,
) -> ServiceCall:
    """How to reach the service, from the options that every such command has. Raises `ConfigurationError`."""
    base = read_base(url, insecure=insecure, name=URL_NAMES, allow="--insecure")
    return ServiceCall(base, given_token(token_file, os.environ.get("RECEIVER_TOKEN", "")), account, as_json)


def given_token(file: Path | None, text: str) -> str:
    """The token in the file of `--token-file`, or in the text of `RECEIVER_TOKEN`; empty if none was given."""
    if file is not None:
        return read_token(read_secret_file(file, "--token-file"), "--token-file")
    return read_token(text, "RECEIVER_TOKEN") if text.strip() else ""


def _check_text(options: dict[str, Any]) -> None:
    """Raise `ConfigurationError` for bytes of the command line that are not text: Python passes them as lone
    surrogates."""
    for name, value in options.items():
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str) and not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
                raise ConfigurationError([f"{name.replace('_', '-')}: this is not UTF-8 text."])


def api_command(
    app: typer.Typer, *, name: str = "", more_epilog: str = "", context: dict[str, Any] | None = None
) -> Callable[[Callable[Concatenate[ServiceCall, P], None]], Callable[Concatenate[ServiceCall, P], None]]:
    """Make a function a command of `app`, by default under the function's name.

    The function gets a `ServiceCall`, made from the options that all such commands share. `context` are click's
    settings for the command.
    """

    def register(body: Callable[Concatenate[ServiceCall, P], None]) -> Callable[Concatenate[ServiceCall, P], None]:
        shared = inspect.signature(reach, eval_str=True).parameters
        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]

        @functools.wraps(body)
        def command(**options: Any) -> None:
            with ending():
                _check_text(options)
                call = reach(**{name: options.pop(name) for name in shared})
                body(call, **options)  # type: ignore[call-arg]  # by its signature

        parameters = [*own, *shared.values()]
        keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        command.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]  # read by typer
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        paragraphs = (inspect.getdoc(body) or "").split("\n\n")
        app.command(
            name or body.__name__,
            help="\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs),
            epilog=f"{more_epilog}\n\n{EPILOG}".strip(),
            context_settings=context,
        )(command)
        return body

    return register


@contextmanager
def ending() -> Iterator[None]:
    """Turns every failure of a command into its message and exit code."""
    try:
        yield
    except ReceiverError as error:
        say(explain(error))
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except Terminated as terminated:
        raise typer.Exit(terminated.exit_code) from None
    except BrokenPipeError:
        silence()
        raise typer.Exit(BROKEN_PIPE) from None


def read_secret_file(path: Path, option: str) -> str:
    """The text of a file that an option names; `-` is standard input.

    Raises `ConfigurationError`, which never contains any of it.
    """
    try:
        raw = _raw(path)
    except OSError as error:
        raise ConfigurationError([f"{option}: {path} cannot be read ({error.strerror})."]) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = ""
    if len(raw) > MOST_FILE or not text.strip():
        raise ConfigurationError([f"{option}: {path} does not hold one line of text."])
    return text.strip()


def _raw(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read(MOST_FILE + 1) if sys.stdin else b""
    with path.open("rb") as file:
        return file.read(MOST_FILE + 1)
