"""Command. The groups of commands, each loaded only when it is called: loading all takes twice as long."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

from typer.core import TyperGroup
from typer.main import get_command, get_group


class Group(NamedTuple):
    """A group of commands, and its text in `--help`."""

    module: str
    """Below `receiver.commands`. Its `app` has the commands."""
    help: str
    is_single: bool = False
    """Whether it is one command with its own help. This text is in the list of commands."""


GROUPS: Mapping[str, Group] = {
    "refund": Group(
        "refund.refund",
        "Read, watch, refresh, create and retry refunds. Needs a running `receiver serve` and a token with the scope "
        "read. create, retry, requests, repeat and settle-request need the scope refund; refresh needs refund or "
        "admin.",
    ),
    "charge": Group(
        "charge",
        "Show what is refunded, pending and left of a charge. Needs a running `receiver serve` and a token with the "
        "scope read.",
    ),
    "subscriber": Group(
        "subscriber.subscriber",
        "Manage subscribers to refund events. Needs a running `receiver serve` and a token with the scope admin.",
    ),
    "events": Group(
        "events.events",
        "Follow refund events. Needs a running `receiver serve` and a token with the scope read.",
    ),
    "delivery": Group(
        "subscriber.delivery",
        "List a subscriber's waiting and permanently failed events, and send them again. Needs a running "
        "`receiver serve` and a token with the scope admin.",
    ),
    "fps": Group(
        "fps.fps",
        "LEGACY: Amazon Flexible Payments (FPS), the service behind Amazon Simple Pay. Amazon retired it on 1 June "
        "2015 and its addresses no longer answer: use it with `receiver simulate` (endpoint /fps/) or your own "
        "stand-in. For Amazon Pay refunds, see `receiver refund`.",
    ),
    "notification": Group(
        "notification",
        "Show Amazon's notifications that this version does not understand. They were answered 200, and the last "
        "1,000 are kept for 30 days. Needs a running `receiver serve` and a token with the scope admin.",
    ),
    "reconcile": Group(
        "reconcile",
        "Compare Amazon's reports of refunds and settlements with what the service knows, and show what differs. With "
        "files, it needs a running `receiver serve` and a token with the scope refund or admin; with --since, it "
        "fetches the reports through Amazon's API, and needs the settings.",
        is_single=True,
    ),
    "audit": Group(
        "audit",
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
            app = import_module(f"receiver.commands.{entry.module}").app
            if entry.is_single:
                self.add_command(get_command(app), name)
                return
            group = get_group(app)
            group.name, group.help = name, entry.help
            self.add_command(group)
