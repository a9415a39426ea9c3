"""Edge: files. Every setting of the service, read and checked as a whole before anything starts.

`load()` merges the environment over the TOML file, checks everything, and either returns `Settings` or raises one
`ConfigurationError` with every problem. `sources.py` reads the sources, `sections.py` and `account.py` define the
tables, `consistency.py` checks tables against each other, and `problems.py` writes the messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from receiver.amazon.account import Account
from receiver.errors import ConfigurationError
from receiver.outbox.subscribers.subscriber import Subscriber
from receiver.settings.account import AccountSettings
from receiver.settings.consistency import contradictions
from receiver.settings.problems import sentences, takes_list_or_table
from receiver.settings.sections import (
    DeliverySettings,
    EventsSettings,
    FeedSettings,
    HttpSettings,
    IngestSettings,
    IssueSettings,
    LogSettings,
    RedisSettings,
    TokenSettings,
    TrackSettings,
)
from receiver.settings.sources import Tree, merge, one_account, read_environment, read_file
from receiver.settings.subscriber import SubscriberSettings, most_subscribers, read_tables, rules_of
from receiver.settings.values import Section, absolute, base_of

NO_ACCOUNT = (
    "a table [[accounts]] for each merchant. One alone may come from the environment, "
    "as RECEIVER_ACCOUNT__MERCHANT_ID, …__REGION, …__PUBLIC_KEY_ID, …__PRIVATE_KEY_FILE and …__TOPIC_ARNS."
)


NO_FILE = (
    "No settings file was named, and the environment has no account. Give --config receiver.toml, or RECEIVER_CONFIG; "
    "`receiver init` writes such a file. One account alone may come from the environment, as "
    "RECEIVER_ACCOUNT__MERCHANT_ID and so on."
)


class StoreSettings(Section):
    """Where the data is: all that commands on the store alone need."""

    data_dir: Path = Field(default=Path("receiver-data"), validate_default=True)
    redis: RedisSettings = RedisSettings()

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path, info: ValidationInfo) -> Path:
        return absolute(path, base_of(info))


class Settings(StoreSettings):
    """All settings. Durations are `timedelta`, sizes are in bytes, files are absolute paths."""

    http: HttpSettings = HttpSettings()
    ingest: IngestSettings = IngestSettings()
    track: TrackSettings = TrackSettings()
    issue: IssueSettings = IssueSettings()
    delivery: DeliverySettings = DeliverySettings()
    feed: FeedSettings = FeedSettings()
    events: EventsSettings = EventsSettings()
    log: LogSettings = LogSettings()
    tokens: tuple[TokenSettings, ...] = ()
    accounts: tuple[AccountSettings, ...] = Field(min_length=1, description=NO_ACCOUNT)
    subscribers: tuple[SubscriberSettings, ...] = ()

    def build_accounts(self) -> list[Account]:
        """Build the accounts, in the order of the configuration."""
        return [account.build() for account in self.accounts]

    def build_subscribers(self, now: int) -> dict[str, list[Subscriber]]:
        """The configured subscribers by account; `now` (ms) becomes their `created_at`."""
        rules = rules_of(self.delivery)
        built: dict[str, list[Subscriber]] = {account.name: [] for account in self.accounts}
        for subscriber in self.subscribers:
            built[subscriber.account or self.accounts[0].name].append(subscriber.build(rules, now))
        return built

    def subscriber_starts(self) -> dict[tuple[str, str], int | None]:
        """By account and name: from what time (ms) a new subscriber is owed events; None means from now."""
        return {(each.account or self.accounts[0].name, each.name): each.start_at for each in self.subscribers}


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the file, if there is one, merge the environment over it, and check everything.

    Raises `ConfigurationError` with one sentence for every problem. No sentence repeats a value that may be secret.
    """
    problems: list[str] = []
    tree = _read(path, environ, problems)
    if path is None and not tree.keys() & {"accounts", "account"}:
        problems.append(NO_FILE)
    return check(tree, _base(path), problems)


def load_store(path: Path | None, environ: Mapping[str, str]) -> StoreSettings:
    """Read `data_dir` and `[redis]` alone: the rest may be wrong, or name secrets that only the service can read.

    Raises `ConfigurationError` like `load`.
    """
    problems: list[str] = []
    tree = _read(path, environ, problems)
    if problems:
        raise ConfigurationError(problems)
    there = {name: tree[name] for name in StoreSettings.model_fields if name in tree}
    try:
        return StoreSettings.model_validate(there, context={"base": _base(path)})
    except ValidationError as error:
        raise ConfigurationError(sentences(error, StoreSettings)) from None


def _read(path: Path | None, environ: Mapping[str, str], problems: list[str]) -> Tree:
    tree = read_file(path, problems) if path else {}
    return merge(tree, read_environment(environ, problems, _takes_json))


def _base(path: Path | None) -> Path:
    return path.absolute().parent if path else Path.cwd()


def _takes_json(path: Sequence[str]) -> bool:
    if path[0] == "account":
        return takes_list_or_table(AccountSettings, path[1:]) if len(path) > 1 else True
    return takes_list_or_table(Settings, path)


def check(tree: Tree, base: Path, problems: list[str] | None = None) -> Settings:
    """Settings from a plain tree; relative paths count from `base`. Raises `ConfigurationError` like `load`."""
    found = list(problems or [])
    tree = one_account(tree, found)
    settings: Settings | None = None
    subscribers, faults = read_tables(tree, base)
    try:
        settings = Settings.model_validate({**tree, "subscribers": subscribers}, context={"base": base})
    except ValidationError as error:
        found += sentences(error, Settings)
    found += [*contradictions(tree, most_subscribers(tree)), *faults]
    if problems and "accounts" not in tree:
        # They may be in the part that could not be read.
        found = [each for each in found if not each.startswith("accounts: is missing")]
    if settings is None or found:
        raise ConfigurationError(found)
    return settings


__all__ = ["Settings", "StoreSettings", "check", "load", "load_store"]
