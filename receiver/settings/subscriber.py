"""Edge: files. The table `[[subscribers]]`. What its fields may be, `outbox/subscriber.py` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator

from receiver.addresses import forbidden
from receiver.outbox.subscriber import Subscriber, read_subscriber, subscriber_problems
from receiver.outbox.target import Rules
from receiver.settings.sections import DeliverySettings
from receiver.settings.sources import Tree
from receiver.settings.values import Name, Section, Words, one_of, secret_text

LISTS = ("types", "reasons", "secrets", "min_amount")
FILES = ("secret", "url", "routing_key", "authorization")
"""What can also stand in a file of its own, as `…_file`."""


class SubscriberSettings(Section):
    """Who is told about which refunds. The account may be left out where there is one."""

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

    @field_validator(*(f"{name}_file" for name in FILES))
    @classmethod
    def _one_of_two(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        return one_of((info.field_name or "").removesuffix("_file"), file, info)

    def build(self, rules: Rules, now: int) -> Subscriber:
        """The subscriber as the outbox knows it. Raises `BadRequest` if a secret file changed since it was checked."""
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
        }
        return {key: value for key, value in fields.items() if value is not None}


def rules_of(delivery: DeliverySettings) -> Rules:
    """What `[delivery]` allows as a subscriber's address, and the links that it sets."""
    return Rules(
        delivery.allow_http,
        lambda address: forbidden(address, delivery.allow_networks),
        delivery.public_url,
        delivery.seller_central,
    )


def subscriber_faults(tree: Tree, base: Path) -> list[str]:
    """A sentence for everything that `outbox/subscriber.py` would refuse, with the key of the table before it."""
    try:
        rules = rules_of(DeliverySettings.model_validate(tree.get("delivery", {})))
    except ValidationError:
        rules = Rules(allow_http=True)
    tables = tree.get("subscribers")
    return [
        f"subscribers[{index}].{problem}."
        for index, table in enumerate(tables if isinstance(tables, list) else [])
        if isinstance(table, dict)
        for problem in subscriber_problems(_as_written(table, base), rules)
    ]


def _as_written(table: Tree, base: Path) -> dict[str, Any]:
    files = {f"{name}_file": name for name in FILES}
    fields = {key: value for key, value in table.items() if key != "account" and key not in files}
    for key in LISTS:
        if isinstance(fields.get(key), str):
            fields[key] = [part.strip() for part in fields[key].split(",")]
    for key, name in files.items():
        file = table.get(key)
        if isinstance(file, str) and name not in fields:
            try:
                fields[name] = secret_text(None, base / Path(file).expanduser())
            except (OSError, ValueError):
                fields[name] = ""
    return fields
