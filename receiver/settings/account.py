"""Edge: files. The table `[[accounts]]`: one merchant in one environment, checked and built."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from receiver.amazon.account import Account, Environment
from receiver.amazon.calls import Endpoint, Region, key_environment
from receiver.amazon.signing import PUBLIC_KEY_ID, Algorithm, Signer
from receiver.amazon.sns import regions
from receiver.amazon.sns.envelope import TOPIC_ARN
from receiver.amazon.sns.topic import TopicPattern
from receiver.amazon.throttle import LIVE_THROTTLE, SANDBOX_THROTTLE, Bucket, Call
from receiver.errors import ConfigurationError, Malformed
from receiver.ledger.charge import OVER
from receiver.ledger.money import Money
from receiver.ledger.polling import DEFAULT_POLL, SECOND_LOOKS, PollPlan
from receiver.ledger.timestamps import milliseconds, parse_duration
from receiver.settings.fps import FpsSettings
from receiver.settings.reconcile import ReconcileSettings
from receiver.settings.values import AnyCase, AsList, Name, Section, Span, Words, base_of, one_of, readable, secret_text
from receiver.transport.addresses import is_loopback

TOPIC_PREFIX = re.compile(r"arn:(aws|aws-cn|aws-us-gov):sns:[a-z0-9-]{1,32}:[0-9]{12}:[A-Za-z0-9_-]{0,255}\*")
CERTIFICATE_URL = re.compile(
    r"https://sns\.[a-z0-9-]{1,32}\.amazonaws\.com(\.cn)?/SimpleNotificationService-[0-9a-f]{32}\.pem"
)
AUTH_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
"""Amazon documents no pattern: any non-empty text that a header can carry."""
HOUR, YEAR = 3_600_000, 365 * 86_400_000
TOPIC_SHAPE = '"arn:aws:sns:us-east-1:291180941288:*" or one exact ARN'

Rate = Annotated[float, Field(gt=0, le=1000)]
Pair = Annotated[tuple[Annotated[float, Field(ge=1, le=1000)], Rate], AsList]


class ThrottleSettings(Section):
    """Token buckets for Amazon's calls, `[burst, per second]` each. The defaults are Amazon's published limits."""

    get_refund: Pair | None = None
    get_charge: Pair | None = None
    get_dispute: Pair | None = None
    create_refund: Pair | None = None
    reports: Pair | None = None


def _key_text(value: object) -> object:
    """A PEM in an environment variable often has `\\n` in place of line ends."""
    return value.replace("\\n", "\n") if isinstance(value, str) and "\n" not in value else value


class AccountSettings(Section):
    """One merchant in one environment. A field must follow the fields that its check needs."""

    name: Name = Field(
        default="default",
        description="the account's name in addresses and in Redis: a-z, 0-9, - and _, at most 32, for example us.",
    )
    merchant_id: str = Field(
        pattern=r"^A[A-Z0-9]{9,24}$",
        description="the merchant id (also seller id) in Seller Central, such as A2ZABCDEFGHIJ.",
    )
    region: Annotated[Region, AnyCase] = Field(description="the Amazon Pay region: na, eu or jp.")
    public_key_id: str = Field(
        pattern=rf"^{PUBLIC_KEY_ID.pattern}$",
        description="the id that Seller Central shows for the public key, such as LIVE-AG3….",
    )
    environment: Annotated[Environment | None, AnyCase] = Field(
        default=None, validate_default=True, description="live or sandbox."
    )
    algorithm: Algorithm = Field(
        default=Algorithm.V2,
        description="the signature of our requests: AMZN-PAY-RSASSA-PSS-V2, or AMZN-PAY-RSASSA-PSS.",
    )
    private_key: Annotated[SecretStr | None, BeforeValidator(_key_text)] = None
    private_key_file: Path | None = Field(default=None, validate_default=True)
    topic_arns: Annotated[tuple[str, ...], AsList] = Field(
        min_length=1, description=f"the list of topics whose notifications are accepted: {TOPIC_SHAPE}."
    )
    endpoint: str | None = None
    signing_certificates: dict[str, Path] = Field(default_factory=dict)
    throttle: ThrottleSettings = Field(default_factory=ThrottleSettings)
    poll: Words = DEFAULT_POLL
    stuck_after: Span = Field(
        default=timedelta(days=1),
        ge=timedelta(minutes=1),
        le=timedelta(days=60),
        description="how long a refund may be pending before a `stuck` event, 1m to 60d.",
    )
    decline_overdue_after: Span = Field(
        default=timedelta(days=3),
        ge=timedelta(minutes=1),
        description="how long the case of a declined refund may stay open before ReceiverDeclineOpen fires.",
    )
    second_looks: Words = SECOND_LOOKS
    over_refund: dict[str, Decimal] = Field(
        default_factory=dict,
        description='currency = the most that may be refunded over a captured amount, such as { CHF = "75.00" }.',
    )
    auth_token: SecretStr | None = None
    auth_token_file: Path | None = Field(default=None, validate_default=True)
    """Delegated access: `x-amz-pay-authtoken`, which the merchant gave to a solution provider."""
    fps: FpsSettings | None = None
    reconcile: ReconcileSettings = Field(default_factory=ReconcileSettings)
    min_signature_version: int = Field(default=1, ge=1, le=2, description="1, or 2 once the topic signs with SHA-256.")

    @field_validator("environment")
    @classmethod
    def _environment_fits_key(cls, environment: Environment | None, info: ValidationInfo) -> Environment | None:
        key_id = info.data.get("public_key_id")
        of_key = key_environment(key_id) if key_id else None
        if environment is None:
            if key_id and of_key is None:
                raise ValueError("is missing: live or sandbox (this public_key_id has no LIVE- or SANDBOX- prefix).")
            return Environment(of_key) if of_key else None
        if of_key is not None and of_key != environment:
            raise ValueError(
                f"is {environment.value}, but public_key_id begins with {of_key.upper()}-. "
                "Amazon refuses this combination: set the key of that environment, or leave environment out."
            )
        return environment

    @field_validator("private_key_file")
    @classmethod
    def _private_key_works(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        file = one_of("private_key", file, info, needed="the PEM file that was made with the public key.")
        if "private_key" not in info.data:
            return file
        try:
            Signer("LIVE-AAAAAAAAAAAAAAAAAAAAAAAA", _pem(info.data["private_key"], file))
        except ConfigurationError as error:
            raise ValueError(" ".join(error.problems)) from None
        return file

    @field_validator("auth_token_file")
    @classmethod
    def _auth_token_works(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        file, given = one_of("auth_token", file, info), info.data.get("auth_token")
        if (file or given is not None) and not AUTH_TOKEN.fullmatch(_auth_token(given, file)):
            raise ValueError(
                "must hold the merchant's token: one line of visible ASCII characters, no spaces. Without delegated "
                "access leave out auth_token and auth_token_file."
            )
        return file

    @field_validator("over_refund")
    @classmethod
    def _over_is_money(cls, over: dict[str, Decimal]) -> dict[str, Decimal]:
        for currency, amount in over.items():
            try:
                Money.written(amount, currency)
            except Malformed as error:
                raise ValueError(error.detail) from None
        return {currency.upper(): amount for currency, amount in over.items()}

    @field_validator("topic_arns")
    @classmethod
    def _topics_are_pinned(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        faults = [
            f"entry {number + 1} {fault}" for number, topic in enumerate(topics) if (fault := _topic_fault(topic))
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return topics

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_safe(cls, address: str | None) -> str | None:
        if address is not None and (fault := _address_fault(address)):
            raise ValueError(fault)
        return address

    @field_validator("signing_certificates")
    @classmethod
    def _certificates_readable(cls, pinned: dict[str, Path], info: ValidationInfo) -> dict[str, Path]:
        for url in pinned:
            if not CERTIFICATE_URL.fullmatch(url):
                raise ValueError(
                    "has an address that no notification can name. "
                    "It is https://sns.<region>.amazonaws.com/SimpleNotificationService-<32 hex digits>.pem."
                )
        return {url: readable(path, base_of(info)) for url, path in pinned.items()}

    @field_validator("poll")
    @classmethod
    def _poll_is_a_plan(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        PollPlan.parse(entries)
        return entries

    @field_validator("second_looks")
    @classmethod
    def _second_looks_are_ages(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        ages = _ages(entries)
        if ages != sorted(set(ages)) or (ages and (ages[0] < HOUR or ages[-1] > YEAR)):
            raise ValueError(
                'are ages in ascending order, 1h to 365d each, such as ["1d", "7d", "30d"]; or [] for none.'
            )
        return entries

    def build(self) -> Account:
        """Build the account. Reads the key and the pinned certificates."""
        environment = self.environment or Environment.LIVE
        return Account(
            name=self.name,
            merchant_id=self.merchant_id,
            environment=environment,
            topics=tuple(map(TopicPattern, self.topic_arns)),
            endpoint=Endpoint(
                self.region,
                environment.value,
                self.public_key_id,
                self.endpoint,
                _auth_token(self.auth_token, self.auth_token_file),
            ),
            signer=Signer(self.public_key_id, _pem(self.private_key, self.private_key_file), self.algorithm),
            throttle=self._throttle(LIVE_THROTTLE if environment is Environment.LIVE else SANDBOX_THROTTLE),
            poll=PollPlan.parse(self.poll),
            stuck_after=milliseconds(self.stuck_after),
            second_looks=tuple(_ages(self.second_looks)),
            decline_overdue_after=milliseconds(self.decline_overdue_after),
            settled_within=milliseconds(self.reconcile.settled_within),
            daily=self.reconcile.build_daily(),
            min_signature_version=self.min_signature_version,
            over={**OVER, **{name: Money(amount, name).minor_units for name, amount in self.over_refund.items()}},
            fps=self.fps.build(environment) if self.fps else None,
            signing_certificates={
                url: path.read_bytes().removeprefix(BOM_UTF8) for url, path in self.signing_certificates.items()
            },
        )

    def _throttle(self, published: dict[Call, Bucket]) -> dict[Call, Bucket]:
        own = {call: getattr(self.throttle, call.value) for call in Call}
        return {call: Bucket(*own[call]) if own[call] else published[call] for call in Call}


def _ages(entries: tuple[str, ...]) -> list[int]:
    return [milliseconds(parse_duration(entry)) for entry in entries]


def _pem(key: SecretStr | None, file: Path | None) -> bytes:
    return file.read_bytes().removeprefix(BOM_UTF8) if file is not None else secret_text(key, None).encode()


def _auth_token(value: SecretStr | None, file: Path | None) -> str:
    return secret_text(value, file).strip()


def _topic_fault(topic: str) -> str:
    if TOPIC_ARN.fullmatch(topic) or TOPIC_PREFIX.fullmatch(topic):
        _, partition, _, region, _ = topic.split(":", 4)
        if regions.signing_name(partition, region) is None:
            return f"names {region}, no AWS region that is known here. Amazon Pay uses us-east-1, eu-west-1, us-west-2."
        return ""
    if any("*" in part for part in topic.split(":", 5)[:5]):
        return (
            "has a star before the topic's name. Every AWS customer can create topics, and SNS signs all of them "
            f"with the same certificate: notifications from any topic would be accepted. Write {TOPIC_SHAPE}."
        )
    return f"is not an SNS topic. Write {TOPIC_SHAPE}."


def _address_fault(address: str) -> str:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return 'is not an address such as "http://127.0.0.1:9100".'
    if not host or parts.scheme not in ("http", "https") or re.search(r"[\s\\]", address):
        return 'is not an address such as "http://127.0.0.1:9100".'
    if parts.username or parts.password or parts.path not in ("", "/") or parts.query or parts.fragment:
        return "has more than scheme, host and port. Leave out the path and everything after it."
    if parts.scheme == "http" and not is_loopback(host):
        return "is plain http to another machine, which could read and change every answer. Use https, or 127.0.0.1."
    return ""
