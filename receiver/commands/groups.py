"""Command. The groups of commands, each loaded only when it is called: loading all takes twice as long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group


class Group(NamedTuple):
    """A group of commands, and its text in `--help`."""

    load: Callable[[], typer.Typer]
    help: str
    is_single: bool = False
    """Whether it is one command with a help of its own. This text is in the list of commands."""


@cache
def _refund() -> typer.Typer:
    from receiver.commands.refund import cases, create, export, importing, jobs, refund, requests

    for module in (create, cases, jobs, requests, export, importing):
        module.register(refund.app)
    return refund.app


def _charge() -> typer.Typer:
    from receiver.commands import charge

    return charge.app


@cache
def _subscriber() -> typer.Typer:
    from receiver.commands.subscriber import apply, subscriber

    apply.register(subscriber.app)
    return subscriber.app


def _events() -> typer.Typer:
    from receiver.commands.events import events

    return events.app


def _delivery() -> typer.Typer:
    from receiver.commands.subscriber import delivery

    return delivery.app


def _fps() -> typer.Typer:
    from receiver.commands.fps import fps

    return fps.app


def _notification() -> typer.Typer:
    from receiver.commands import notification

    return notification.app


def _audit() -> typer.Typer:
    from receiver.commands import audit

    return audit.app


def _reconcile() -> typer.Typer:
    from receiver.commands import reconcile

    return reconcile.app


GROUPS: Mapping[str, Group] = {
    "refund": Group(
        _refund,
        "Read, watch, refresh, create and retry refunds. Needs a running `receiver serve` and a token with the scope "
        "read. create, retry, requests, repeat and settle-request need the scope refund; refresh needs refund or "
        "admin.",
    ),
    "charge": Group(
        _charge,
        "Show what of a charge is refunded, pending and left. Needs a running `receiver serve` and a token with the "
        "scope read.",
    ),
    "subscriber": Group(
        _subscriber,
        "Manage subscribers to refund events. Needs a running `receiver serve` and a token with the scope admin.",
    ),
    "events": Group(
        _events,
        "Follow refund events. Needs a running `receiver serve` and a token with the scope read.",
    ),
    "delivery": Group(
        _delivery,
        "List a subscriber's waiting and permanently failed events, and send them again. Needs a running "
        "`receiver serve` and a token with the scope admin.",
    ),
    "fps": Group(
        _fps,
        "LEGACY: Amazon Flexible Payments (FPS), the service behind Amazon Simple Pay. Amazon retired it on 1 June "
        "2015 and its addresses no longer answer: use it with `receiver simulate` (endpoint /fps/) or your own "
        "stand-in. For Amazon Pay refunds, see `receiver refund`.",
    ),
    "notification": Group(
        _notification,
        "Show Amazon's notifications that this version does not understand. They were answered 200, and the last "
        "1,000 are kept for 30 days. Needs a running `receiver serve` and a token with the scope admin.",
    ),
    "reconcile": Group(
        _reconcile,
        "Compare Amazon's reports of refunds and settlements with what the service knows, and show what differs. With "
        "files, it needs a running `receiver serve` and a token with the scope refund or admin; with --since, it "
        "fetches the reports through Amazon's API, and needs the settings.",
        is_single=True,
    ),
    "audit": Group(
        _audit,
        "Show who did what: every refund that was requested, settled or refreshed, and every change of a subscriber, "
        "with the token and the person. Needs a running `receiver serve` and a token with the scope admin.",
    ),
}


class RootGroup(TyperGroup):
    """The command `receiver`: its own commands, and the groups."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Lists the groups without loading them."""
        for name, group in GROUPS.items():
            self.commands.setdefault(name, TyperGroup(name=name, help=group.help))
        super().format_help(ctx, formatter)

    def list_commands(self, ctx: Any) -> list[str]:
        """Every name, in the order of `--help`."""
        return [*(name for name in self.commands if name not in GROUPS), *GROUPS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command. A name that does not exist loads all groups: the message suggests similar names."""
        if cmd_name in GROUPS:
            self._load(cmd_name)
        elif cmd_name not in self.commands:
            for name in GROUPS:
                self._load(name)
        return self.commands.get(cmd_name)

    def _load(self, name: str) -> None:
        if name not in self.commands:
            entry = GROUPS[name]
            if entry.is_single:
                self.add_command(get_command(entry.load()), name)
                return
            group = get_group(entry.load())
            group.name, group.help = name, entry.help
            self.add_command(group)
