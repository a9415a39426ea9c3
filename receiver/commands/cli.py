"""Command. The command line: reads options and settings, then calls one module of `commands/`."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from time import time_ns
from typing import Annotated

import typer

from receiver.commands import backup, init, openapi, repair, token
from receiver.commands.groups import RootGroup
from receiver.commands.setup import Config, fail, quiet, read_settings, run
from receiver.errors import ConfigurationError

# Commands import what they need when they run: loading the service takes longer than all that most of them do.
app = typer.Typer(
    name="receiver",
    help="Receives Amazon Pay refund notifications, tracks every refund, and notifies subscribers of declines.",
    epilog="Start with `receiver demo`: it runs everything on this machine, without an Amazon account.",
    cls=RootGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def show_version(asked: bool) -> None:
    """Print the version and end, if it was asked for."""
    if asked:
        from receiver.runtime.version import PACKAGE, package_version

        typer.echo(f"{PACKAGE} {package_version()}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Read the options that stand before the command."""


@app.command()
def serve(
    config: Config = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Serve HTTP only; run `receiver work` elsewhere for the rest.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Number of processes sharing the port.")] = 1,
) -> None:
    """Receive notifications, serve the API, poll Amazon and deliver events, in one process.

    Without redis.url it runs its own durable Valkey in data_dir. At SIGHUP it reads its tokens, subscribers and secrets
    again; invalid settings change nothing, and the log names those that need a restart.
    """
    gc.disable()  # No module is garbage: looking for garbage takes an eighth of the time.
    from receiver.commands.serve.processes import serve as command

    gc.freeze()
    gc.enable()
    run(command(read_settings(config), config, workers=not no_worker, processes=workers))


@app.command()
def work(config: Config = None) -> None:
    """Poll Amazon and deliver events without HTTP: more workers for a `receiver serve` on the same Redis.

    At SIGHUP it reads its subscribers and secrets again, like `receiver serve`.
    """
    from receiver.commands.serve.serve import work as command

    run(command(read_settings(config), config))


@app.command()
def demo(
    refunds: Annotated[int, typer.Option("--refunds", min=40, max=2000, help="Number of refunds to start.")] = 40,
    keep: Annotated[bool, typer.Option("--keep", help="Keep everything running at the end, to look around.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only one JSON object, at the end.")] = False,
) -> None:
    """Run everything on this machine, without an account: a simulated Amazon, the service, two subscribers.

    Notifications arrive, some twice, some late, two never, some forged. Declines are delivered and retried. Exits with
    0 only if every expected state and delivery was observed. Needs the extra `embedded`.
    """
    from receiver.commands.demo.demo import run as command
    from receiver.commands.signals import Terminated, in_order

    quiet()
    try:
        raise typer.Exit(run(in_order(command(refunds=refunds, keep=keep, as_json=as_json))))
    except Terminated as terminated:
        raise typer.Exit(terminated.exit_code) from None


@app.command()
def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free port.")] = 9100,
    post_to: Annotated[
        str, typer.Option(help="URL that notifications are posted to: your receiver's /ipn.")
    ] = "http://127.0.0.1:8000/ipn",
    fps_post_to: Annotated[
        str,
        typer.Option(
            help="URL for Flexible Payments notifications. Default: /fps/<account> on the host of --post-to.",
            show_default=False,
        ),
    ] = "",
    region: Annotated[str, typer.Option(help="na, eu or jp.")] = "na",
    environment: Annotated[str, typer.Option(help="sandbox or live: sets the prefix of ids and paths.")] = "sandbox",
    delay: Annotated[
        float, typer.Option(min=0, help="Seconds until a refund has its outcome. Amazon takes about 30.")
    ] = 30.0,
    signature_version: Annotated[
        int, typer.Option(min=1, max=2, help="SNS signature version of the notifications. Amazon Pay uses 1.")
    ] = 1,
    unlimited: Annotated[
        bool, typer.Option("--unlimited", help="Do not throttle: answer 429 only if you ask for it.")
    ] = False,
    keys: Annotated[Path, typer.Option(help="Folder for the simulator's keys.")] = Path("receiver-simulator"),
) -> None:
    """Run a simulated Amazon Pay to develop against. Prints the settings that your receiver needs."""
    from receiver.commands.simulate import run as command
    from receiver.runtime import logs

    logs.configure()
    run(
        command(
            host=host,
            port=port,
            post_to=post_to,
            fps_post_to=fps_post_to,
            region=region.lower(),
            environment=environment.lower(),
            outcome_delay=delay,
            signature_version=signature_version,
            unlimited=unlimited,
            keys=keys,
        )
    )


@app.command()
def verify(
    files: Annotated[
        list[Path], typer.Argument(help='SNS envelopes, or files of the form {"message": …, "cert_pem": …}.')
    ],
    topic: Annotated[
        list[str], typer.Option("--topic", help="Allowed topic, as in topic_arns. This command also takes '*'.")
    ],
    cert: Annotated[
        Path | None, typer.Option("--cert", help="PEM file of the signing certificate, for bare envelopes.")
    ] = None,
    at: Annotated[
        str, typer.Option("--at", help="Time to check at: now, message (the message's own time), or an RFC 3339 time.")
    ] = "now",
) -> None:
    """Check captured notifications offline, by every rule of /ipn except deduplication.

    Prints one JSON line per file: file, verdict (accepted or refused), reason, refund_id. The reason of an accepted
    message is null, or unrecognized: it is Amazon's, but not understood. Exits with 1 if any message is refused.
    """
    import json

    from receiver.commands.verify import verify_files

    quiet()
    refused = False
    try:
        for line in verify_files(files, cert=cert, at=at, topics=topic, now=lambda: time_ns() // 1_000_000):
            refused |= line["verdict"] != "accepted"
            typer.echo(json.dumps(line))
    except ConfigurationError as error:
        fail(error)
    raise typer.Exit(1 if refused else 0)


@app.command()
def prune(
    config: Config = None,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than",
            metavar="SPAN",
            help="Remove refunds last changed longer ago than this, for example 400d. At least 30d.",
        ),
    ] = "",
    refund_id: Annotated[
        str, typer.Option("--refund", metavar="ID", help="Remove this one refund, whatever its age, if it is final.")
    ] = "",
    account: Annotated[
        str, typer.Option("--account", help="Only this account. Default: all accounts.", show_default=False)
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be removed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only one JSON object.")] = False,
) -> None:
    """Permanently remove final refunds and their history: all old ones, or a single one.

    A refund is kept while it is pending or in conflict, while an event of it waits for a subscriber, while Amazon is
    about to be asked about it, while a request is open on its charge, or while its Idempotency-Key is still known.
    Refunded amounts still count against their charge. Works on the store of the settings while the service runs. Only
    a backup undoes it.

    Exit codes: 0 done · 1 the refund of --refund was kept or not found · 2 wrong usage or configuration · 3 the store
    does not answer.
    """
    import uvloop

    from receiver.commands.client.options import ending
    from receiver.commands.prune import prune as command

    with ending():
        raise typer.Exit(uvloop.run(command(read_settings(config), older_than, refund_id, account, dry_run, as_json)))


@app.command()
def doctor(
    config: Config = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Contact nothing on the Internet: neither Amazon nor the certificate hosts."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only one JSON object.")] = False,
    url: Annotated[
        str,
        typer.Option(
            "--url", envvar="RECEIVER_URL", help="Address of the running service. Default: from the settings."
        ),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", envvar="RECEIVER_TOKEN_FILE", help="File with a token of the service with scope admin."
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow sending the token over plain http to another machine.")
    ] = False,
    whole_store: Annotated[
        bool, typer.Option("--store", help="Read every record of the store and report damaged ones.")
    ] = False,
) -> None:
    """Check an installation and say what to fix: settings, keys, clocks, Redis, Amazon, subscribers, the service.

    It changes nothing: it writes and removes one test key in Redis, and asks Amazon for a refund that does not exist.
    Takes at most 20 seconds, or longer with --store, which reads every record.

    Exit codes: 0 nothing failed (there may be warnings) · 1 a check failed · 2 the command cannot run.
    """
    from receiver.commands.client.options import ending
    from receiver.commands.doctor.doctor import doctor as command

    quiet()

    with ending():
        raise typer.Exit(
            run(
                command(
                    config,
                    offline=offline,
                    as_json=as_json,
                    url=url,
                    token_file=token_file,
                    insecure=insecure,
                    whole_store=whole_store,
                )
            )
        )


for module in (init, backup, openapi, repair, token):
    app.add_typer(module.app)


def main() -> None:
    """The entry point `receiver`."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
