"""Command. The options that `receiver subscriber add` and `change` have in common, and the files that they name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from receiver.commands.client.options import read_secret_file
from receiver.commands.subscriber.views import SHORT_TYPES
from receiver.ledger.timestamps import parse_span
from receiver.outbox.formats.registry import FORMATS, format_spec

DEFAULTS = "; ".join(
    f"{', '.join(each.value.rpartition('.')[2] for each in known.types)} for {name}" for name, known in FORMATS.items()
)
Types = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TYPE,…",
        help=f"Events to send: {', '.join(SHORT_TYPES)}, all (of these), or receiver.* (problems with deliveries). "
        f"Repeat it, or separate by commas. Default: {DEFAULTS}.",
    ),
]
Reasons = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REASON,…",
        help="Send events with a reason code only for these codes, for example AmazonRejected. Default: all.",
    ),
]
MinAmount = Annotated[
    list[str] | None,
    typer.Option(
        metavar="AMOUNT", help='Skip refunds below this amount, for example "100.00 USD". Repeat per currency.'
    ),
]
Rate = Annotated[float | None, typer.Option(help="Deliveries per second at most. Default: the service's.")]
Concurrency = Annotated[int | None, typer.Option(help="Concurrent deliveries at most. Default: the service's.")]
Backfill = Annotated[
    bool | None,
    typer.Option(
        "--backfill/--no-backfill",
        help="Whether to send events of old refunds: those final at Amazon for over 7 days when first seen here, such "
        "as imported ones. Default: yes for cloudevents, no for other formats.",
        show_default=False,
    ),
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File with the signing secret, whsec_…. -: standard input. Default: a new secret.",
    ),
]
ReplacingSecretFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="With a new URL: file with the secret, whsec_…, that replaces all earlier ones. -: standard input.",
    ),
]
NewSecret = Annotated[
    bool,
    typer.Option("--new-secret", help="With a new URL: create a new secret and print it once."),
]
AddressFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File with the URL, for URLs that are secret, such as Slack's or Teams'. -: standard input.",
    ),
]
RoutingKeyFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File with PagerDuty's routing key (integration key). -: standard input."),
]
AuthorizationFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File with an Alertmanager's Authorization header, as Bearer TOKEN. -: standard input.",
    ),
]


def _span(text: str) -> str:
    try:
        parse_span(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return text


OldValidFor = Annotated[
    str, typer.Option(metavar="SPAN", callback=_span, help="How long the old secret keeps signing, 0s to 7d.")
]


def check_address(address: str, file: Path | None, name: str) -> None:
    """Check that a new subscriber of the format `name` has one address. Raises `typer.BadParameter`."""
    known = format_spec(name)
    if address and file:
        raise typer.BadParameter("use either this or --address-file.", param_hint="URL")
    if not (address or file or known.url):
        raise typer.BadParameter(
            f"is missing: the address of the subscriber, such as {known.example}. --address-file FILE keeps a secret "
            "one out of the command line.",
            param_hint="URL",
        )


def read_files(
    secret: Path | None, routing_key: Path | None, authorization: Path | None, address: Path | None
) -> dict[str, str]:
    """The fields of a subscriber that are read from files. Raises `ConfigurationError`, which never contains a
    value."""
    files = {"secret": secret, "routing_key": routing_key, "authorization": authorization, "url": address}
    options = {"url": "--address-file"}
    return {
        field: read_secret_file(file, options.get(field, f"--{field.replace('_', '-')}-file"))
        for field, file in files.items()
        if file
    }


def filters(
    types: Sequence[str] | None, reasons: Sequence[str] | None, amounts: Sequence[str] | None
) -> dict[str, Any]:
    """The fields that filter events, as they are written: the service knows the short names of types."""
    return {
        "types": [*split(types)],
        "reasons": split(reasons),
        "minAmount": split(amounts),
    }


def split(values: Sequence[str] | None) -> Sequence[str]:
    """Words that were repeated, or separated by commas."""
    return [word.strip() for value in values or () for word in value.split(",") if word.strip()]
