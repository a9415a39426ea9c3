"""Command. The groups of commands that speak to the API, as the command line has them."""

from __future__ import annotations

import typer

from receiver.commands import (
    delivery,
    events,
    export,
    fps,
    issue,
    notification,
    openapi,
    refund,
    repair,
    requests,
    settlement,
    subscriber,
)


def register(app: typer.Typer) -> None:
    """Make them commands of `app`."""
    for group in (issue, requests, export, settlement):
        group.register(refund.app)
    openapi.register(app)
    repair.register(app)
    app.add_typer(refund.app, name="refund")
    app.add_typer(subscriber.app, name="subscriber")
    app.add_typer(events.app, name="events")
    app.add_typer(delivery.app, name="delivery")
    app.add_typer(fps.app, name="fps")
    app.add_typer(notification.app, name="notification")
