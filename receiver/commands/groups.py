"""Command. The groups of commands that speak to the API, as the command line has them."""

from __future__ import annotations

import typer

from receiver.commands import notification, openapi, repair
from receiver.commands.events import events
from receiver.commands.fps import fps
from receiver.commands.refund import create, export, importing, refund, requests
from receiver.commands.subscriber import delivery, subscriber


def register(app: typer.Typer) -> None:
    """Make them commands of `app`."""
    for group in (create, requests, export, importing):
        group.register(refund.app)
    openapi.register(app)
    repair.register(app)
    app.add_typer(refund.app, name="refund")
    app.add_typer(subscriber.app, name="subscriber")
    app.add_typer(events.app, name="events")
    app.add_typer(delivery.app, name="delivery")
    app.add_typer(fps.app, name="fps")
    app.add_typer(notification.app, name="notification")
