"""Edge: files. The table `[[subscribers]]`. Its fields are read by `outbox/subscribers/reading.py`, like the API's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from receiver.errors import ConfigurationError, Malformed
from receiver.outbox.subscribers.reading import read_start, read_subscriber, subscriber_problems
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.outbox.subscribers.url import UrlPolicy
from receiver.settings.sections import DeliverySettings
from receiver.settings.sources import Tree, read_file
from receiver.settings.values import listed, readable, secret_text
from receiver.transport.addresses import forbidden

LISTS = ("types", "reasons", "secrets", "min_amount")
"""Fields that may also be written as `"a, b"`."""
FILES = ("secret", "url", "routing_key", "authorization")
"""Fields that can be read from a separate file, as `…_file`."""
OWN = ("account", "start", *(f"{name}_file" for name in FILES))
"""Keys of the table that are not fields of a subscriber."""


@dataclass(frozen=True, slots=True)
class SubscriberSettings:
    """One table, with the contents of its files."""

    account: str | None
    """None: the only account."""
    start_at: int | None
    """The time (ms) from which a new subscriber is owed events; None: now."""
    fields: Tree = field(repr=False)
    files: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        return str(self.fields.get("name"))

    def build(self, rules: UrlPolicy, now: int) -> Subscriber:
        """Build the subscriber, created at `now` (ms)."""
        return read_subscriber(self.fields, rules, origin="config", now=now)


def rules_of(delivery: DeliverySettings) -> UrlPolicy:
    """The address rules and default links of `[delivery]`."""
    return UrlPolicy(
        delivery.allow_http,
        lambda address: forbidden(address, delivery.allow_networks),
        delivery.public_url,
        delivery.seller_central,
    )


def most_subscribers(tree: Tree) -> int | None:
    """How many subscribers `[delivery]` allows for each account; None if that setting is wrong, which is reported
    elsewhere."""
    delivery = tree.get("delivery")
    limit = (
        {key: delivery[key] for key in ("max_subscribers",) if key in delivery} if isinstance(delivery, dict) else {}
    )
    try:
        return DeliverySettings.model_validate(limit).max_subscribers
    except ValidationError:
        return None


def read_subscribers_file(path: Path) -> list[SubscriberSettings]:
    """The tables `[[subscribers]]` of a TOML file for `receiver subscriber apply`. A signing secret may be missing.

    Addresses are checked by the service, which knows its `[delivery]`. Raises `ConfigurationError` with every problem.
    """
    problems: list[str] = []
    tree = read_file(path, problems)
    tables = tree.get("subscribers")
    read: list[SubscriberSettings] = []
    if not problems and not (isinstance(tables, list) and tables and all(isinstance(each, dict) for each in tables)):
        problems.append(f"{path}: has no table [[subscribers]].")
    else:
        for index, table in enumerate(tables or ()):
            found: list[str] = []
            rules = UrlPolicy(allow_http=True)
            read.append(_read_table(table, path.absolute().parent, rules, found, secret_needed=False))
            problems += [f"subscribers[{index}].{problem.removesuffix('.')}." for problem in found]
    twice = Counter((each.account, each.name) for each in read)
    problems += [f"subscribers: {name} is there twice. Rename one." for (_, name), times in twice.items() if times > 1]
    if problems:
        raise ConfigurationError(problems)
    return read


def read_tables(tree: Tree, base: Path) -> tuple[Any, list[str]]:
    """The tables `[[subscribers]]`, and one sentence for each of their problems, starting with the key.

    Anything but a list is returned unchanged. Relative paths count from `base`.
    """
    tables = tree.get("subscribers", [])
    if not isinstance(tables, list):
        return tables, []
    try:
        rules = rules_of(DeliverySettings.model_validate(tree.get("delivery", {})))
    except ValidationError:
        rules = UrlPolicy(allow_http=True)
    read: list[SubscriberSettings] = []
    problems: list[str] = []
    for index, table in enumerate(tables):
        if isinstance(table, dict):
            found: list[str] = []
            read.append(_read_table(table, base, rules, found))
            problems += [f"subscribers[{index}].{problem.removesuffix('.')}." for problem in found]
        else:
            problems.append(f"subscribers[{index}]: is not a table.")
    return read, problems


def _read_table(
    table: Tree, base: Path, rules: UrlPolicy, problems: list[str], *, secret_needed: bool = True
) -> SubscriberSettings:
    fields = {key: value for key, value in table.items() if key not in OWN}
    fields |= {key: listed(fields[key]) for key in LISTS if key in fields}
    files, start, unread = [], None, [] if secret_needed else ["secret: is missing"]
    for name in FILES:
        try:
            if f"{name}_file" in table:
                files.append(_path(name, table, base))
                fields[name] = secret_text(None, files[-1])
        except ValueError as error:
            problems.append(f"{name}_file: {error}")
            unread += [] if name in fields else [f"{name}: "]
    try:
        start = read_start(table.get("start"))
    except Malformed as error:
        problems.append(f"start: {error.detail}")
    found = subscriber_problems(fields, rules, also=OWN)
    problems += [problem for problem in found if not problem.startswith(tuple(unread))]
    return SubscriberSettings(table.get("account"), start, fields, tuple(files))


def _path(name: str, table: Tree, base: Path) -> Path:
    file = table[f"{name}_file"]
    if name in table:
        raise ValueError(f"contradicts {name}: set one of the two.")
    if not isinstance(file, str):
        raise ValueError("must be the path of a file, as text.")
    return readable(Path(file), base)
