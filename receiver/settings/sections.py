"""Edge: files. The tables of the configuration other than accounts, with their defaults and checks."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, SecretStr, ValidationInfo, field_validator

from receiver.amazon.sns.envelope import MAX_BODY
from receiver.ledger.resolution import TRACKED_FOR
from receiver.outbox.formats.format import link_problems
from receiver.settings.values import (
    AnyCase,
    AsList,
    HeaderName,
    Name,
    Networks,
    Section,
    Span,
    SpanOrNone,
    Words,
    check_tls,
    one_of,
    secret_text,
)
from receiver.store.redis.address import RedisAddress, read_address

LEASE_MARGIN = timedelta(seconds=20)
"""How much longer a lease lasts than its request's timeout, so that a slow worker can still finish its claim in
time."""


def seconds(number: float) -> timedelta:
    """A default of so many seconds."""
    return timedelta(seconds=number)


class RedisSettings(Section):
    """`[redis]`. Without an address the service runs an embedded Valkey in `data_dir`.

    See `store/redis/address.py` for addresses of Sentinels and of a cluster.
    """

    url: SecretStr | None = None
    url_file: Path | None = Field(default=None, validate_default=True)
    password: SecretStr | None = None
    password_file: Path | None = Field(default=None, validate_default=True)
    wait_replicas: int = Field(
        default=0, ge=0, le=10, description="how many replicas must confirm each group of writes."
    )
    wait_timeout: Span = timedelta(milliseconds=500)
    connect_timeout: Span = seconds(2)
    timeout: Span = seconds(5)

    @field_validator("url")
    @classmethod
    def _address_is_known(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and url.get_secret_value():
            check_tls(read_address(url.get_secret_value()))
        return url

    @field_validator("url_file")
    @classmethod
    def _address_in_the_file_is_known(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        file = one_of("url", file, info)
        if file is not None and (url := secret_text(None, file)):
            check_tls(read_address(url))
        return file

    @field_validator("password_file")
    @classmethod
    def _one_password(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        file = one_of("password", file, info)
        if file is None and info.data.get("password") is None:
            return None
        if "url_file" in info.data:
            url = secret_text(info.data.get("url"), info.data["url_file"])
            if not url:
                raise ValueError("there is a password but no address. Set redis.url, or leave the password out.")
            if read_address(url).password:
                raise ValueError("the address holds a password already. Give it once.")
            if not secret_text(info.data.get("password"), file):
                raise ValueError("is empty. Give the password, or leave the setting out if Redis asks for none.")
        return file

    @property
    def address(self) -> RedisAddress | None:
        """The address with its password; None for the embedded store."""
        url = secret_text(self.url, self.url_file)
        return read_address(url).signed_in(secret_text(self.password, self.password_file)) if url else None


class HttpSettings(Section):
    """`[http]`: where to listen, and which proxies may give the client's address."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=0, le=65535)
    admin_host: str | None = Field(default=None, min_length=1)
    """`host`, if not set."""
    admin_port: int | None = Field(default=None, ge=0, le=65535, validate_default=True)
    """A second port, for everything except notifications and health; None: one port serves everything."""
    trusted_proxies: Networks = ()
    user_header: HeaderName | None = None
    """The header in which a trusted proxy names the person who is signed in, such as X-Forwarded-User (Authelia's is
    Remote-User, oauth2-proxy's also X-Auth-Request-Email); None: no person is recorded."""
    connections: int = Field(default=1000, ge=1, le=1_000_000)
    """Open connections on each port, in each process. At the limit, a new connection replaces the oldest one of the
    client with the most idle or unfinished ones. Each needs a file descriptor."""
    keep_alive: Span = Field(
        default=seconds(75),
        ge=seconds(1),
        le=seconds(3600),
        description="how long a connection may idle, 1s to 1h.",
    )
    """Longer than the idle timeout of proxies in front: ALB, ingress-nginx and nginx use 60 s."""
    waiting: int = Field(default=200, ge=1, le=100_000)
    """Concurrent requests with `?wait=`, in each process. Beyond the limit: 503."""
    waiting_per_token: int | None = Field(default=None, ge=1, le=100_000)
    """The same for one token; None: half of it, or all of it if there is only one token."""
    failed_sign_ins: int = Field(default=20, ge=0, le=10_000)
    """Burst of wrong tokens from one client address. After that: 429, and one more every 6 s. 0: no limit."""
    refreshes: int = Field(default=120, ge=0, le=100_000)
    """Refreshes by one token, as a burst and per minute, in each process. Beyond the limit: 429. 0: no limit."""
    header_timeout: Span = seconds(10)
    shutdown_timeout: Span = seconds(8)

    @field_validator("admin_port")
    @classmethod
    def _is_another(cls, admin_port: int | None, info: ValidationInfo) -> int | None:
        host, admin_host = info.data.get("host"), info.data.get("admin_host")
        if admin_port is None and admin_host is not None:
            raise ValueError("is missing: admin_host has no effect without it. Set admin_port, or leave both out.")
        if admin_port and admin_port == info.data.get("port") and admin_host in (None, host):
            raise ValueError("is the same as http.port. Choose another, or leave it out to have only one port.")
        return admin_port

    @property
    def listeners(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each listener. The first takes notifications. The last, which may be the same, serves the
        API, the dashboard and the metrics."""
        public = (self.host, self.port)
        return (public,) if self.admin_port is None else (public, (self.admin_host or self.host, self.admin_port))


class IngestSettings(Section):
    """`[ingest]`: which notifications are accepted, and how many at once."""

    max_body: ByteSize = Field(default=ByteSize(MAX_BODY), ge=16 * 1024, le=MAX_BODY)
    max_buffered: ByteSize = Field(default=ByteSize(64 * 1024 * 1024), ge=4 * 1024 * 1024)
    body_timeout: Span = seconds(10)
    answer_timeout: Span = Field(default=seconds(12), le=seconds(14))
    """SNS stops waiting after 15 s ("SendMessageToHttp"), so a later answer is lost."""
    concurrency: int = Field(default=128, ge=1, le=65536)
    """Concurrent notifications in each process. Beyond the limit: 503. A core verifies 128 in about 50 ms; requests to
    be refused wait behind them."""
    max_age: Span = timedelta(days=15)
    max_future: Span = timedelta(minutes=5)
    certificate_md5: Annotated[Literal["enforce", "warn"], AnyCase] = Field(
        default="enforce",
        description="what to do when a certificate's file name is not the MD5 of its DER: enforce or warn.",
    )
    confirm_subscriptions: bool = False
    """Confirm verified SubscriptionConfirmations of allowed topics by fetching their address. Amazon Pay does not need
    this."""


class TrackSettings(Section):
    """`[track]`: polling Amazon."""

    request_timeout: Span = seconds(10)
    lease: Span = Field(default_factory=lambda valid: shortest_lease(valid.get("request_timeout")))
    concurrency: int = Field(default=32, ge=1, le=1024)
    open_if_younger: Span = timedelta(milliseconds=TRACKED_FOR)
    """A refund that was declined longer ago when it is first seen gets no open case."""

    @field_validator("lease")
    @classmethod
    def _lease_is_long_enough(cls, lease: timedelta, info: ValidationInfo) -> timedelta:
        return checked_lease(lease, info.data.get("request_timeout"), "track.request_timeout")


class IssueSettings(Section):
    """`[issue]`: issuing refunds."""

    same_amount_within: SpanOrNone = Field(
        default=timedelta(hours=1),
        description="how long after the start of a refund another of the same amount on its charge is issued only "
        "if the caller names the first; 0 turns this off.",
    )


class DeliverySettings(Section):
    """`[delivery]`: delivery to subscribers."""

    allow_networks: Networks = ()
    allow_http: bool = False
    concurrency: int = Field(default=256, ge=1, le=4096)
    per_subscriber: int = Field(default=8, ge=1, le=256)
    rate: float = Field(default=50, ge=0.1, le=1000, description="messages a second to one subscriber, 0.1 to 1000.")
    max_subscribers: int = Field(
        default=100, ge=1, le=1000, description="how many subscribers one account may have, 1 to 1000."
    )
    keep_dead: int = Field(default=10_000, ge=1, le=1_000_000, description="dead events kept for each subscriber.")
    connect_timeout: Span = seconds(3)
    timeout: Span = Field(default=seconds(10), le=seconds(60))
    lease: Span = Field(default_factory=lambda valid: shortest_lease(valid.get("timeout")))
    public_url: str = ""
    """The address of this service for people, used in links."""
    seller_central: str = ""

    @field_validator("lease")
    @classmethod
    def _lease_is_long_enough(cls, lease: timedelta, info: ValidationInfo) -> timedelta:
        return checked_lease(lease, info.data.get("timeout"), "delivery.timeout")

    @field_validator("public_url", "seller_central")
    @classmethod
    def _leads_somewhere(cls, url: str) -> str:
        if problems := link_problems(url) if url else []:
            raise ValueError(f"{'; '.join(problems)}.")
        return url


class EventsSettings(Section):
    """`[events]`: retention of the event stream."""

    keep: Span = timedelta(days=30)
    keep_owed: Span = Field(default=timedelta(days=60), validate_default=True)
    """An event owed for longer becomes a dead letter, even if the subscriber is paused."""

    @field_validator("keep_owed")
    @classmethod
    def _not_shorter(cls, keep_owed: timedelta, info: ValidationInfo) -> timedelta:
        keep = info.data.get("keep")
        if keep is not None and keep_owed < keep:
            raise ValueError("must not be shorter than events.keep: events that are still kept may be owed.")
        return keep_owed


def shortest_lease(timeout: timedelta | None) -> timedelta:
    """The shortest lease that is safe with this timeout; None: the timeout could not be read."""
    return (timeout or seconds(10)) + LEASE_MARGIN


def checked_lease(lease: timedelta, timeout: timedelta | None, key: str) -> timedelta:
    """The lease. Raises `ValueError` if it is too short to be safe."""
    if timeout is not None and lease < shortest_lease(timeout):
        raise ValueError(
            "is too short: a second worker would take what the first is still sending. "
            f"With this {key} it is at least {shortest_lease(timeout).total_seconds():g}s; leave it out to get that."
        )
    return lease


class FeedSettings(Section):
    """`[feed]`: `GET /v1/events`, in each process."""

    clients: int = Field(default=100, ge=1, le=10_000)
    """Concurrent clients. Long polls count while they wait."""
    clients_per_token: int | None = Field(default=None, ge=1, le=10_000)
    """The same for one token; None: half of it, or all of it if there is only one token."""
    buffer: int = Field(default=1000, ge=10, le=100_000)
    """How many events a client may lag behind before it is disconnected."""


class LogSettings(Section):
    """`[log]`, always on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], AnyCase] = "info"
    format: Annotated[Literal["auto", "json", "text"], AnyCase] = Field(
        default="auto", description="auto (text on a terminal), json or text."
    )


class Scope(StrEnum):
    """What a token may do. No scope includes another: a token that issues and reads refunds needs both."""

    READ = "read"
    REFUND = "refund"
    ADMIN = "admin"


class TokenSettings(Section):
    """`[[tokens]]`: who may use the API. Only the digest of a token is ever stored."""

    name: Name = Field(description="who holds the token; it is what the log shows.")
    sha256: str = Field(
        pattern=r"^[0-9a-fA-F]{64}$",
        description="the SHA-256 of the token, 64 hex digits: printf %s TOKEN | sha256sum.",
    )
    scopes: Annotated[frozenset[Scope], AnyCase, AsList] = Field(
        min_length=1, description="a list of read, refund and admin."
    )
    accounts: Words | None = None
    """Names of the accounts that the token may see; None: all."""
