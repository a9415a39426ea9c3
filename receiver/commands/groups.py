"""Command. The groups of commands, each loaded only when it is called: loading all takes twice as long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group


@cache
def _refund() -> typer.Typer:
    from receiver.commands.refund import cases, create, export, importing, jobs, refund, requests

    for module in (create, cases, jobs, requests, export, importing):
        module.register(refund.app)
    return refund.app


def _charge() -> typer.Typer:
    from receiver.commands import charge

    return charge.app


def _subscriber() -> typer.Typer:
    from receiver.commands.subscriber import subscriber

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


GROUPS: Mapping[str, Callable[[], typer.Typer]] = {
    "refund": _refund,
    "charge": _charge,
    "subscriber": _subscriber,
    "events": _events,
    "delivery": _delivery,
    "fps": _fps,
    "notification": _notification,
    "audit": _audit,
}


class RootGroup(TyperGroup):
    """The command `receiver`: its own commands, and the groups."""

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
            group = get_group(GROUPS[name]())
            group.name = name
            self.add_command(group)
