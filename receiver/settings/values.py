"""Edge: files. The types of settings' values. Error messages never repeat the value."""

from __future__ import annotations

import os
import re
import ssl
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo

from receiver.ledger.timestamps import parse_duration
from receiver.store.redis.address import TLS_FILES, RedisAddress

Span = Annotated[timedelta, BeforeValidator(parse_duration), Field(gt=timedelta(0))]
"""A duration: `10s`, `5m`, `15d`, or a number of seconds."""

SpanOrNone = Annotated[timedelta, BeforeValidator(parse_duration), Field(ge=timedelta(0))]
"""The same, where 0 turns the feature off."""


def listed(value: Any) -> Any:
    """A text such as `a, b` as a list; anything else unchanged."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def lowered(value: Any) -> Any:
    """A text in lower case, and those of a list; anything else unchanged."""
    if isinstance(value, list | tuple | set | frozenset):
        return [lowered(each) for each in value]
    return value.lower() if isinstance(value, str) else value


AnyCase = BeforeValidator(lowered)
"""Accepts the words of a setting in any letter case: `NA`, `Sandbox`."""

HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})


def _header_name(name: str) -> str:
    if not HEADER_NAME.fullmatch(name):
        raise ValueError("must be the name of a header, such as X-Forwarded-User: letters, digits and hyphens.")
    if name.lower() in SECRET_HEADERS:
        raise ValueError("is a header that holds secrets. Name the one in which the proxy says who is signed in.")
    return name


def _network(value: Any) -> Any:
    try:
        return ip_network(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError('must be an address or a network such as "10.0.0.0/8" (no bits set right of it).') from None


AsList = BeforeValidator(listed)
"""Accepts a list as `a,b,c`, as environment variables have it."""

Words = Annotated[tuple[str, ...], AsList]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Networks = Annotated[tuple[Network, ...], AsList]
HeaderName = Annotated[str, AfterValidator(_header_name)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]


class Section(BaseModel):
    """One table of the configuration. Unknown keys are errors, and values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, str_strip_whitespace=True)


def base_of(info: ValidationInfo) -> Path:
    """The base folder of relative paths: that of the configuration file."""
    base = (info.context or {}).get("base")
    return base if isinstance(base, Path) else Path.cwd()


def absolute(path: Path, base: Path) -> Path:
    """The path made absolute. Raises `ValueError` if it begins with `~` and there is no home directory for it."""
    try:
        return base / path.expanduser()
    except RuntimeError:
        raise ValueError("begins with ~, but no home directory is known for it. Write the full path.") from None


def readable(path: Path, base: Path) -> Path:
    """The path made absolute. Raises `ValueError` if the file cannot be read.

    The message does not repeat the path: it may be the secret itself, set under the wrong key.
    """
    whole = absolute(path, base)
    try:
        with whole.open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no file can have this name"
        under = "" if path.is_absolute() else f" A relative path counts from {base}."
        raise ValueError(f"names a file that cannot be read ({why}). Fix the path or its permissions.{under}") from None
    return whole


def secret_text(value: SecretStr | None, file: Path | None) -> str:
    """A secret given as text or as a file. A file's byte order mark and trailing line ends are removed.

    Raises `ValueError` if the file is not text.
    """
    if file is not None:
        try:
            return file.read_text("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            raise ValueError(f"{file} is not text in UTF-8.") from None
    return value.get_secret_value() if value is not None else ""


def one_of(key: str, file: Path | None, info: ValidationInfo, *, needed: str = "") -> Path | None:
    """Check a pair `key`, `key_file`: at most one may be set. If `needed` describes the value, one must be."""
    if key not in info.data:
        return None if file is None else readable(file, base_of(info))
    if file is None:
        if info.data[key] is None and needed:
            raise ValueError(f"is missing, and so is {key}: {needed}")
        return None
    if info.data[key] is not None:
        raise ValueError(f"contradicts {key}: set one of the two.")
    return readable(file, base_of(info))


def check_tls(address: RedisAddress) -> None:
    """Raise `ValueError` for certificates and keys of an address that TLS cannot use.

    Otherwise a wrong file would look like an unreachable Redis.
    """
    options = address.options
    for option in sorted(TLS_FILES & options.keys()):
        if not os.access(options[option], os.R_OK):
            raise ValueError(
                f"{option} names {options[option]}, which cannot be read. Fix the path or its permissions."
            )
    if "ssl_ca_path" in options and not os.path.isdir(options["ssl_ca_path"]):
        raise ValueError(f"ssl_ca_path names {options['ssl_ca_path']}, which is not a directory. Fix the path.")
    if ("ssl_certfile" in options) != ("ssl_keyfile" in options):
        raise ValueError("ssl_certfile and ssl_keyfile belong together: name both, or none.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if "ssl_ca_certs" in options:
            context.load_verify_locations(options["ssl_ca_certs"])
    except (ssl.SSLError, OSError):
        raise ValueError(f"ssl_ca_certs names {options['ssl_ca_certs']}, which holds no certificate in PEM.") from None
    try:
        if "ssl_certfile" in options:
            context.load_cert_chain(options["ssl_certfile"], options["ssl_keyfile"], password="")
    except (ssl.SSLError, OSError):
        raise ValueError(
            "ssl_certfile and ssl_keyfile are not a certificate and its key in PEM, or the key is encrypted."
        ) from None
