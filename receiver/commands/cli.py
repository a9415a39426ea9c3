"""Command. The command line: reads options and settings, and hands over to one module of `commands/` each."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from receiver.commands import openapi, repair
from receiver.commands.groups import RootGroup
from receiver.errors import ConfigurationError, ReceiverError

if TYPE_CHECKING:
    from receiver.settings import Settings

# Commands import what they need when they run: loading the service takes longer than all that most of them do.
app = typer.Typer(
    name="receiver",
    help="Receives Amazon Pay refund notifications, tracks every refund, and tells subscribers about declines.",
    epilog="Begin with `receiver demo`: the whole job on this machine, without an account.",
    cls=RootGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="RECEIVER_CONFIG",
        help="TOML file with the settings; every setting can also come from RECEIVER_… variables.",
    ),
]


@app.command()
def serve(
    config: Config = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="HTTP only; `receiver work` elsewhere does the rest.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Processes that share the port.")] = 1,
) -> None:
    """Receive notifications and serve the API; ask Amazon and deliver events in the same process.

    Without redis.url it runs its own Valkey in data_dir, durable: it finds everything again after a restart.
    """
    gc.disable()  # No module is garbage: looking for some takes an eighth of the time.
    from receiver.commands.serve.processes import serve as command

    gc.enable()
    _run(command(_settings(config), config, workers=not no_worker, processes=workers))


@app.command()
def work(config: Config = None) -> None:
    """Ask Amazon and deliver events, without HTTP: more hands beside `receiver serve`, on the same Redis."""
    from receiver.commands.serve.serve import work as command

    _run(command(_settings(config)))


@app.command()
def demo(
    refunds: Annotated[int, typer.Option("--refunds", min=40, max=2000, help="How many refunds to start.")] = 40,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end, to look around.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, and nothing else.")
    ] = False,
) -> None:
    """Run the whole job on this machine, without an account: Amazon's stand-in, the service, two subscribers.

    Refunds happen, notifications arrive (some twice, some late, two never, some forged), declines are pushed and
    retried. Exits with 0 only if every expected state and delivery was observed. Needs the extra `embedded`.
    """
    from receiver.commands.demo.demo import run
    from receiver.commands.signals import Terminated, in_order

    _quiet()
    try:
        raise typer.Exit(_run(in_order(run(refunds=refunds, keep=keep, as_json=as_json))))
    except Terminated as terminated:
        raise typer.Exit(terminated.exit_code) from None


@app.command()
def simulate(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0: any free port.")] = 9100,
    post_to: Annotated[
        str, typer.Option(help="Where notifications are posted: your receiver's /ipn.")
    ] = "http://127.0.0.1:8000/ipn",
    fps_post_to: Annotated[
        str,
        typer.Option(
            help="Where forms of the retired Flexible Payments go. Default: beside --post-to, /fps/<environment>.",
            show_default=False,
        ),
    ] = "",
    region: Annotated[str, typer.Option(help="na, eu or jp.")] = "na",
    environment: Annotated[str, typer.Option(help="sandbox or live: the prefix of ids, and of the path.")] = "sandbox",
    delay: Annotated[
        float, typer.Option(min=0, help="Seconds until a refund has its outcome; Amazon: about 30.")
    ] = 30.0,
    signature_version: Annotated[int, typer.Option(min=1, max=2, help="Of the notifications; Amazon Pay: 1.")] = 1,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="Never answer 429 by itself.")] = False,
    keys: Annotated[Path, typer.Option(help="Folder that keeps the simulator's keys.")] = Path("receiver-simulator"),
) -> None:
    """Run a stand-in Amazon Pay alone, to develop against. It prints the settings that your receiver needs."""
    from receiver.commands.simulate import run
    from receiver.runtime import logs

    logs.configure()
    _run(
        run(
            host=host,
            port=port,
            post_to=post_to,
            fps_post_to=fps_post_to,
            region=region,
            environment=environment,
            outcome_delay=delay,
            signature_version=signature_version,
            unlimited=unlimited,
            keys=keys,
        )
    )


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help='Envelopes, or files of the form {"message": …, "cert_pem": …}.')],
    topic: Annotated[list[str], typer.Option("--topic", help="Allowed topic, as in topic_arns; here alone also '*'.")],
    cert: Annotated[
        Path | None, typer.Option("--cert", help="PEM of the certificate that signed bare envelopes.")
    ] = None,
    at: Annotated[
        str, typer.Option("--at", help="Judge as of: now, message (its own time), or an RFC 3339 time.")
    ] = "now",
) -> None:
    """Judge captured notifications offline, by every rule of /ipn but deduplication.

    Prints one JSON line for each file: file, verdict (accepted or refused), reason, refund_id. The reason of an
    accepted message is null, or unrecognized: it is Amazon's, and not understood. Exits with 1 if any is refused.
    """
    import json

    from receiver.commands.verify import verify_files
    from receiver.service import system_clock

    _quiet()
    refused = False
    try:
        for line in verify_files(files, cert=cert, at=at, topics=topic, now=system_clock):
            refused |= line["verdict"] != "accepted"
            typer.echo(json.dumps(line))
    except ConfigurationError as error:
        _fail(error)
    raise typer.Exit(1 if refused else 0)


@app.command()
def prune(
    config: Config = None,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than",
            metavar="SPAN",
            help="Remove refunds whose last change is older: such as 400d; 30d or more.",
        ),
    ] = "",
    refund_id: Annotated[
        str, typer.Option("--refund", metavar="ID", help="Remove this refund, however old, if it is settled.")
    ] = "",
    account: Annotated[
        str, typer.Option("--account", help="Only this account. Default: all.", show_default=False)
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Remove settled refunds for good, with their history: those that are old, or one.

    A refund stays that is pending or in conflict, that a subscriber is still to be told of, that Amazon is about to be
    asked about, on whose charge a request is open, or whose Idempotency-Key is still known. What was refunded goes on
    counting on its charge. Works on the store of the settings while the service runs; only a backup undoes it.

    Exit codes: 0 done · 1 the refund of --refund was kept, or is not known · 2 wrong usage or configuration · 3 the
    store does not answer.
    """
    import uvloop

    from receiver.commands.client.options import ending
    from receiver.commands.prune import prune as command

    with ending():
        raise typer.Exit(uvloop.run(command(_settings(config), older_than, refund_id, account, dry_run, as_json)))


@app.command()
def doctor(
    config: Config = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nobody on the Internet: neither Amazon nor the certificates' host.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
    url: Annotated[
        str,
        typer.Option(
            "--url", envvar="RECEIVER_URL", help="Address of the running service. Default: where the settings say."
        ),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", envvar="RECEIVER_TOKEN_FILE", help="File with a token of scope admin for it."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Send the token over plain http to another machine.")
    ] = False,
    whole_store: Annotated[
        bool, typer.Option("--store", help="Read every record of the store, and name those that are damaged.")
    ] = False,
) -> None:
    """Check an installation, and say what to do: settings, keys, clocks, Redis, Amazon, subscribers, the service.

    Changes nothing: it writes and removes one key of its own in Redis, and asks Amazon for a refund that does not
    exist. Takes 20 seconds at most; with --store as long as it takes to read every record.

    Exit codes: 0 nothing failed (warnings are allowed) · 1 something failed · 2 it cannot run.
    """
    from receiver.commands.client.options import ending
    from receiver.commands.doctor.doctor import doctor as command
    from receiver.commands.doctor.doctor import end_soon
    from receiver.service import system_clock
    from receiver.settings import load

    _quiet()

    async def whole() -> int:
        code = await command(
            lambda: load(config, os.environ),
            system_clock=system_clock,
            config=config,
            offline=offline,
            as_json=as_json,
            url=url,
            token_file=token_file,
            token=os.environ.get("RECEIVER_TOKEN", "").strip(),
            insecure=insecure,
            whole_store=whole_store,
        )
        end_soon(code)
        return code

    with ending():
        raise typer.Exit(_run(whole()))


openapi.register(app)
repair.register(app)


def _settings(config: Path | None) -> Settings:
    """The settings; or every problem with them on standard error, and exit code 2."""
    from receiver.runtime import logs
    from receiver.settings import load

    try:
        settings = load(config, os.environ)
    except ConfigurationError as error:
        _fail(error)
    logs.configure(level=settings.log.level, format=settings.log.format)
    return settings


def _quiet() -> None:
    """Log errors only: the command prints its own results."""
    from receiver.runtime import logs

    logs.configure(level="error")


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    import uvloop

    try:
        return uvloop.run(work)
    except ReceiverError as error:
        _fail(error)


def _fail(error: ReceiverError) -> NoReturn:
    problems = error.problems if isinstance(error, ConfigurationError) else (error.detail,)
    for problem in problems:
        typer.echo(f"receiver: {problem}", err=True)
    sys.exit(2)


def main() -> None:
    """The entry point `receiver`."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
