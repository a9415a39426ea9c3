"""Pure. Addresses of a Redis that fails over: several hosts, of Sentinels or of a cluster's nodes.

    redis+sentinel://[user:password@]host:26379,host:26379/master-name[/database][?option=value&…]
    redis+cluster://[user:password@]host:7000,host:7001[?option=value&…]

`rediss+…` is the same over TLS. User and password are those of the servers that hold the data; what is special in
them is percent-encoded. Addresses of a single Redis (`redis://`, `rediss://`, `unix://`) are the client library's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

SENTINEL, CLUSTER = "sentinel", "cluster"
SINGLE_SCHEMES = ("redis", "rediss", "unix")
SEVERAL = {
    f"{redis}+{kind}": (kind, redis == "rediss") for kind in (SENTINEL, CLUSTER) for redis in ("redis", "rediss")
}
"""Scheme → what the hosts are, and whether they are spoken to over TLS."""
SCHEMES = (*SINGLE_SCHEMES, *SEVERAL)
PORTS = {SENTINEL: 26379, CLUSTER: 6379}
EXAMPLES = {
    SENTINEL: "redis+sentinel://s1:26379,s2:26379,s3:26379/master-name",
    CLUSTER: "redis+cluster://n1:6379,n2:6379,n3:6379",
}
TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs"})
"""As in an address `rediss://`."""
TLS_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
FLAGS = frozenset({"ssl_check_hostname"})
SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})
"""How one signs in at the Sentinels, where that is needed."""
MASTER_NAME = re.compile(r"[A-Za-z0-9._-]+")
"""As Sentinel itself allows: https://valkey.io/topics/sentinel/."""
HOST = re.compile(r"\[(?P<six>[0-9A-Fa-f:.%]+)\](?::(?P<six_port>[^:]*))?|(?P<name>[^:\[\]\s]+)(?::(?P<port>[^:]*))?")
LAST_PORT, LAST_DATABASE = 65535, 2**31 - 1


class BadAddress(ValueError):
    """An address that cannot be used. `reason` is a stable word; the text never repeats what may hold a password."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Several:
    """Where a Redis that fails over is."""

    kind: str
    """`SENTINEL` or `CLUSTER`: what `hosts` are."""
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    username: str = ""
    password: str = field(default="", repr=False)
    master: str = ""
    """The name by which Sentinels know it."""
    database: int = 0
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def tls_options(self) -> dict[str, str | bool]:
        """As the client library wants them."""
        found: dict[str, str | bool] = {name: text for name, text in self.options.items() if name in TLS_OPTIONS}
        flags = {name: self.options[name] == "true" for name in FLAGS & self.options.keys()}
        return {**found, **flags, "ssl": True} if self.tls else {}

    @property
    def shown(self) -> str:
        """The address without anything secret."""
        scheme = f"{'rediss' if self.tls else 'redis'}+{self.kind}"
        path = f"/{self.master}/{self.database}" if self.kind == SENTINEL else ""
        return f"{scheme}://{','.join(address_text(*each) for each in self.hosts)}{path}"


def address_text(host: str, port: int) -> str:
    """`host:7000`, `[::1]:7000`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_several(url: str) -> bool:
    """Whether the address names Sentinels or a cluster."""
    return url.partition("://")[0].lower() in SEVERAL


def has_password(url: str) -> bool:
    """Whether there is a password in the address, of whatever scheme."""
    sign_in, at, _ = _authority(url)[0].rpartition("@")
    return bool(at) and bool(sign_in.partition(":")[2])


def read_several(url: str) -> Several:
    """The address, taken apart.

    Raises `BadAddress`: bad_scheme, no_host, bad_host, bad_port, host_twice, no_master_name, bad_master_name,
    bad_database, cluster_database, bad_option.
    """
    scheme = url.partition("://")[0].lower()
    if scheme not in SEVERAL or "://" not in url:
        raise BadAddress("bad_scheme", f"the address must begin with one of {', '.join(f'{s}://' for s in SCHEMES)}.")
    kind, tls = SEVERAL[scheme]
    authority, path, query = _authority(url)
    sign_in, _, hosts = authority.rpartition("@")
    username, _, password = sign_in.partition(":")
    master, database = _sentinel_path(path) if kind == SENTINEL else _cluster_path(path)
    return Several(
        kind,
        _hosts(hosts, kind),
        tls,
        unquote(username),
        unquote(password),
        master,
        database,
        _options(query, kind, tls),
    )


def _authority(url: str) -> tuple[str, str, str]:
    """Sign-in and hosts; path; query."""
    rest, _, query = url.partition("://")[2].partition("?")
    authority, _, path = rest.partition("/")
    return authority, path, query


def _hosts(text: str, kind: str) -> tuple[tuple[str, int], ...]:
    if not text.strip():
        raise BadAddress("no_host", f"the address names no host. Write for example {EXAMPLES[kind]}.")
    found = tuple(_host(part, kind) for part in text.split(","))
    if len(set(found)) < len(found):
        raise BadAddress("host_twice", "the address names one host and port twice. Name each once.")
    return found


def _host(text: str, kind: str) -> tuple[str, int]:
    found = HOST.fullmatch(text)
    if not found:
        raise BadAddress(
            "bad_host",
            f"the address has a host that is none: hosts are separated by one comma each, as in {EXAMPLES[kind]}; "
            "an IPv6 address stands in [ ].",
        )
    port = found["six_port"] if found["six"] else found["port"]
    if port is None:
        return found["six"] or found["name"], PORTS[kind]
    if not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= LAST_PORT and len(port) < 6):
        raise BadAddress("bad_port", f"the address has a port that is none. Ports are 1 to {LAST_PORT}.")
    return found["six"] or found["name"], int(port)


def _sentinel_path(path: str) -> tuple[str, int]:
    name, _, database = path.rstrip("/").partition("/")
    if not name:
        raise BadAddress(
            "no_master_name",
            "the address lacks the name by which the Sentinels know the master (sentinel monitor NAME …). "
            f"Write for example {EXAMPLES[SENTINEL]}.",
        )
    if not MASTER_NAME.fullmatch(name):
        raise BadAddress("bad_master_name", "a master's name has letters, digits, dots, hyphens and underscores.")
    if not database:
        return name, 0
    if not (database.isascii() and database.isdecimal() and len(database) < 11 and int(database) <= LAST_DATABASE):
        raise BadAddress("bad_database", "after the master's name comes the number of a database, or nothing.")
    return name, int(database)


def _cluster_path(path: str) -> tuple[str, int]:
    if path.strip("/") not in ("", "0"):
        raise BadAddress("cluster_database", "a cluster has database 0 alone. Leave out what stands after the hosts.")
    return "", 0


def _options(query: str, kind: str, tls: bool) -> dict[str, str]:
    known = (TLS_OPTIONS | FLAGS if tls else frozenset()) | (SENTINEL_OPTIONS if kind == SENTINEL else frozenset())
    found = dict(parse_qsl(query, keep_blank_values=True))
    flags = {name: text.lower() for name, text in found.items() if name in FLAGS}
    if not found.keys() <= known or not set(flags.values()) <= {"true", "false"}:
        options = f"known after ? are {', '.join(sorted(known))}" if known else "nothing may stand after ?"
        raise BadAddress("bad_option", f"the address has an option that is none: {options}; ssl_… is for rediss+….")
    return {**found, **flags}
