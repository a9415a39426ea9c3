"""Command. The options that `receiver subscriber add` and `change` have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from receiver.commands.subscriber_views import TYPES

Types = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TYPE,…",
        help=f"Events it wants: {', '.join(TYPES)}, all (of these), or receiver.* (what befalls deliveries). "
        "Repeat it, or separate by commas. Default: declined; with conflict for pagerduty; with conflict and stuck for "
        "slack and alertmanager.",
    ),
]
Reasons = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REASON,…",
        help="Of events with a reason code only these, for example AmazonRejected. Default: all.",
    ),
]
MinAmount = Annotated[
    list[str] | None,
    typer.Option(metavar="AMOUNT", help='Not told of refunds of less, for example "100.00 USD"; repeat per currency.'),
]
Rate = Annotated[float | None, typer.Option(help="Deliveries a second at most. Default: the service's.")]
Concurrency = Annotated[int | None, typer.Option(help="Deliveries at once at most. Default: the service's.")]
Backfill = Annotated[
    bool | None,
    typer.Option(
        "--backfill/--no-backfill",
        help="Whether it is told of refunds that Amazon settled over 7 days before they were first seen here, such as "
        "imported ones. Default: cloudevents is, other formats are not.",
        show_default=False,
    ),
]
