"""Edge: files. Changed settings: which of them a running service applies, and which need a restart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from receiver.settings import Settings
from receiver.settings.account import AccountSettings
from receiver.settings.values import Section

TAKEN_OVER = ("tokens", "subscribers")
SECRETS = ("public_key_id", "algorithm", "private_key", "private_key_file", "auth_token", "auth_token_file")
"""The fields of an account that a running service applies."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The settings to continue with, and the keys of the changed settings that are not among them."""

    settings: Settings
    need_restart: tuple[str, ...]


def reloaded(running: Settings, found: Settings) -> Reloaded:
    """The running settings, with the tokens, subscribers and secrets of accounts from the settings `found`.

    If accounts were added, removed or moved to the other environment, the subscribers are left out too: they belong to
    accounts.
    """
    before, after = ({each.name: each for each in settings.accounts} for settings in (running, found))
    same = {name: each.environment for name, each in before.items()} == {
        name: each.environment for name, each in after.items()
    }
    taken = {
        "tokens": found.tokens,
        **({"subscribers": found.subscribers, "accounts": _with_secrets(running, after)} if same else {}),
    }
    restart = [*_changed_sections(running, found), *(_changed_accounts(before, after) if same else ["accounts"])]
    if not same and running.subscribers != found.subscribers:
        restart.append("subscribers")
    return Reloaded(running.model_copy(update=taken), tuple(sorted(restart)))


def _with_secrets(running: Settings, found: dict[str, AccountSettings]) -> tuple[AccountSettings, ...]:
    return tuple(
        each.model_copy(update={field: getattr(found[each.name], field) for field in SECRETS})
        for each in running.accounts
    )


def _changed_sections(running: Settings, found: Settings) -> Iterator[str]:
    for name in Settings.model_fields:
        before, after = getattr(running, name), getattr(found, name)
        if name in (*TAKEN_OVER, "accounts"):
            continue
        if isinstance(before, Section):
            yield from (f"{name}.{field}" for field in _different(before, after))
        elif before != after:
            yield name


def _changed_accounts(before: dict[str, AccountSettings], after: dict[str, AccountSettings]) -> list[str]:
    fields = {field for name, each in before.items() for field in _different(each, after[name])}
    return [f"accounts.{field}" for field in fields - set(SECRETS)]


def _different(before: Section, after: Section) -> Iterator[str]:
    return (field for field in type(before).model_fields if getattr(before, field) != getattr(after, field))
