"""Edge: files. The table `[[subscribers]]`. `outbox/subscribers/reading.py` checks its fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator

from receiver.errors import Malformed
from receiver.ledger.timestamps import parse_any_time
from receiver.outbox.subscribers.reading import read_subscriber, subscriber_problems
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.outbox.subscribers.url import UrlPolicy
from receiver.settings.sections import DeliverySettings
from receiver.settings.sources import Tree
from receiver.settings.values import Name, Section, Words, absolute, one_of, secret_text
from receiver.transport.addresses import forbidden

LISTS = ("types", "reasons", "secrets", "min_amount")
FILES = ("secret", "url", "routing_key", "authorization")
"""Fields that can be read from a separate file, as `…_file`."""


class SubscriberSettings(Section):
    """A subscriber and its filters. The account may be omitted if there is only one."""

    account: Name | None = None
    name: str = Field(default="", description="the subscriber's name.")
    url: str | None = Field(default=None, repr=False, description="the address that events are posted to.")
    url_file: Path | None = Field(default=None, validate_default=True)
    secret: SecretStr | None = None
    secret_file: Path | None = Field(default=None, validate_default=True)
    secrets: tuple[SecretStr, ...] | None = None
    types: Words | None = None
    reasons: Words | None = None
    min_amount: Words | None = None
    format: str | None = None
    routing_key: SecretStr | None = None
    routing_key_file: Path | None = Field(default=None, validate_default=True)
    authorization: SecretStr | None = None
    authorization_file: Path | None = Field(default=None, validate_default=True)
    public_url: str | None = None
    seller_central: str | None = None
    rate: float | None = None
    concurrency: int | None = None
    backfill: bool | None = None
    start: str = "now"
    """From what time a new subscriber is owed events: now, beginning, or an RFC 3339 time."""

    @field_validator("start")
    @classmethod
    def _a_time(cls, start: str) -> str:
        if start not in ("now", "beginning"):
            _moment(start)
        return start

    @property
    def start_at(self) -> int | None:
        """`start` in ms; None for now."""
        return None if self.start == "now" else 0 if self.start == "beginning" else _moment(self.start)

    @field_validator(*(f"{name}_file" for name in FILES))
    @classmethod
    def _one_of_two(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        return one_of((info.field_name or "").removesuffix("_file"), file, info)

    def build(self, rules: UrlPolicy, now: int) -> Subscriber:
        """Build the subscriber. Raises `BadRequest` if a secret file became invalid after it was checked."""
        return read_subscriber(self._fields(), rules, origin="config", now=now)

    def _fields(self) -> dict[str, Any]:
        url = self.url if self.url is None else SecretStr(self.url)
        fields = {
            "name": self.name,
            "url": secret_text(url, self.url_file) or None,
            "secret": secret_text(self.secret, self.secret_file) or None,
            "secrets": [each.get_secret_value() for each in self.secrets] if self.secrets else None,
            "types": self.types,
            "reasons": self.reasons,
            "min_amount": self.min_amount,
            "format": self.format,
            "routing_key": secret_text(self.routing_key, self.routing_key_file) or None,
            "authorization": secret_text(self.authorization, self.authorization_file) or None,
            "public_url": self.public_url,
            "seller_central": self.seller_central,
            "rate": self.rate,
            "concurrency": self.concurrency,
            "backfill": self.backfill,
        }
        return {key: value for key, value in fields.items() if value is not None}


def _moment(text: str) -> int:
    try:
        return max(parse_any_time(text), 0)
    except Malformed as error:
        raise ValueError('must be "now", "beginning", or a time such as "2026-01-31T12:00:00Z".') from error


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


def subscriber_faults(tree: Tree, base: Path) -> list[str]:
    """One sentence for each problem that `subscriber_problems` finds, starting with the key of the table."""
    try:
        rules = rules_of(DeliverySettings.model_validate(tree.get("delivery", {})))
    except ValidationError:
        rules = UrlPolicy(allow_http=True)
    tables = tree.get("subscribers")
    return [
        f"subscribers[{index}].{problem}."
        for index, table in enumerate(tables if isinstance(tables, list) else [])
        if isinstance(table, dict)
        for problem in subscriber_problems(_as_written(table, base), rules)
    ]


def _as_written(table: Tree, base: Path) -> dict[str, Any]:
    files = {f"{name}_file": name for name in FILES}
    fields = {key: value for key, value in table.items() if key not in ("account", "start") and key not in files}
    for key in LISTS:
        if isinstance(fields.get(key), str):
            fields[key] = [part.strip() for part in fields[key].split(",")]
    for key, name in files.items():
        file = table.get(key)
        if isinstance(file, str) and name not in fields:
            try:
                fields[name] = secret_text(None, absolute(Path(file), base))
            except (OSError, ValueError):
                fields[name] = ""
    return fields
