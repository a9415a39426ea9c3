"""Pure. The rules for a subscriber's address; each problem with its fix.

Only the text is checked here. The resolved IP address is checked when the socket is opened.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

LONGEST_URL = 2048
EXAMPLE = "https://finance.example/hooks"
URL_TEXT = re.compile(r"[!-~]+")
FORBIDDEN_CHARACTERS = re.compile(r"[\\\"<>^`{|}]")
HOST = re.compile(
    r"(?=.{1,253}\.?\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*\.?"
)
BRACKETS = re.compile(r"[^\[\]]*|\[[^\[\]]*\](?::[0-9]*)?")
"""RFC 3986, 3.2.2: only an IP literal is in brackets, and only a port may follow. `urlsplit` ignores anything else."""
NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
"""WHATWG URL, "ends in a number checker": such a host is an IPv4 address or invalid."""


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """The operator's rules and defaults for all subscribers."""

    allow_http: bool = False
    forbidden: Callable[[str], str | None] = lambda _: None
    """For an IP address as text: the name of the forbidden range, or None. It respects the networks that the operator
    allows."""
    public_url: str = ""
    seller_central: str = ""
    """The default links in messages to people."""


def host_only(url: str) -> str:
    """The address without path and query, which may be a credential."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/…"


def place_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a subscriber's address. If they change, credentials must be given again."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", url, None


def url_problems(url: object, rules: UrlPolicy, example: str = EXAMPLE) -> list[str]:
    """All problems of a subscriber's address, one sentence each. The address is not repeated: it may hold a
    password. `example` is one for the subscriber's format."""
    if not isinstance(url, str) or not url:
        return [f"is missing; write for example {example}"]
    if len(url) > LONGEST_URL:
        return [f"has {len(url)} characters; shorten it to {LONGEST_URL}"]
    if not URL_TEXT.fullmatch(url) or FORBIDDEN_CHARACTERS.search(url):
        return ["has spaces or other characters that are invalid in a URL; percent-encode them (a host name: punycode)"]
    try:
        parts = urlsplit(url)
        port = parts.port
        if not BRACKETS.fullmatch(parts.netloc.rpartition("@")[2]):
            raise ValueError
    except ValueError:
        return [f"cannot be split into host and port; write for example {EXAMPLE}"]
    if not parts.scheme or "//" not in url:
        return [f"is not absolute; write for example {EXAMPLE}"]
    return [*_part_problems(url, parts, rules), *_port_problems(port), *_host_problems(parts.hostname or "", rules)]


def _part_problems(url: str, parts: SplitResult, rules: UrlPolicy) -> Iterator[str]:
    if parts.scheme not in ("http", "https"):
        yield f"must begin with https://; write for example {EXAMPLE}"
    if parts.scheme == "http" and not rules.allow_http:
        yield "must begin with https://; plain http is sent only where delivery.allow_http = true"
    if "@" in parts.netloc:
        yield "must not hold a user name or password; deliveries are authenticated by their signature"
    if "#" in url:
        yield "must not have a fragment; remove the # and everything after it"


def _port_problems(port: int | None) -> Iterator[str]:
    """Ports below 1024 belong to mail, SSH, DNS and other services that an event could harm."""
    if port is not None and port not in (80, 443) and port < 1024:
        yield f"names port {port}; use 443, 80, or one from 1024 up"


def _host_problems(host: str, rules: UrlPolicy) -> Iterator[str]:
    if not host:
        yield f"has no host; write for example {EXAMPLE}"
        return
    address = _literal(host)
    if address is None and (":" in host or NUMERIC.fullmatch(host)):
        yield "has a host that is neither a name nor a plain IP address; write the address in its usual form"
    elif address is None and not HOST.fullmatch(host):
        yield "has a host that is not a host name; use letters, digits, hyphens and dots (other scripts: punycode)"
    else:
        word = rules.forbidden(address) if address else None
        if word:
            yield f"points to {address} ({word}); if that is meant, add its network to delivery.allow_networks"


def _literal(host: str) -> str | None:
    """The IP address that the host literally is; `localhost` counts as one (RFC 6761)."""
    name = host.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return None if "%" in host else str(ipaddress.ip_address(host))
    except ValueError:
        return None
