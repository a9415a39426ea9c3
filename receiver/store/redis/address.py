"""Pure. Reads `redis.url`: a single Redis, its socket, the Sentinels of one, or the nodes of a cluster.

    redis://[user:password@]host[:6379][/database]
    unix://[user:password@]/path/to/socket[?db=database]
    redis+sentinel://[user:password@]host:26379,host:26379/master-name[/database]
    redis+cluster://[user:password@]host:7000,host:7001

`rediss` instead of `redis` uses TLS. Options follow after `?`. The user and password are for the servers that hold the
data. RFC 3986 requires special characters in them to be percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import AddressValueError, IPv6Address
from urllib.parse import unquote

SINGLE, UNIX, SENTINEL, CLUSTER = "single", "unix", "sentinel", "cluster"
SCHEMES: Mapping[str, tuple[str, bool]] = {
    "redis": (SINGLE, False),
    "rediss": (SINGLE, True),
    "unix": (UNIX, False),
    "redis+sentinel": (SENTINEL, False),
    "rediss+sentinel": (SENTINEL, True),
    "redis+cluster": (CLUSTER, False),
    "rediss+cluster": (CLUSTER, True),
}
"""Scheme → what the hosts are, and whether TLS is used."""
PORTS = {SINGLE: 6379, SENTINEL: 26379, CLUSTER: 6379}
EXAMPLES = {
    SINGLE: "redis://cache.internal:6379/0",
    UNIX: "unix:///run/valkey/valkey.sock",
    SENTINEL: "redis+sentinel://s1:26379,s2:26379,s3:26379/master-name",
    CLUSTER: "redis+cluster://n1:6379,n2:6379,n3:6379",
}
TLS_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
TLS_OPTIONS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(TLS_FILES | {"ssl_ca_path"}, frozenset[str]()),
    "ssl_cert_reqs": frozenset({"none", "optional", "required"}),
    "ssl_check_hostname": frozenset({"true", "false"}),
}
"""Option → its allowed values; empty: any text. The names are redis-py's."""
SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})
"""Credentials for the Sentinels, if they require any."""
MASTER_NAME = re.compile(r"[A-Za-z0-9._-]+")
"""The characters that Sentinel itself allows: https://valkey.io/topics/sentinel/."""
HOST = re.compile(r"\[(?P<six>[0-9A-Fa-f:.%]+)\](?::(?P<six_port>[^:]*))?|(?P<name>[^:@\[\]\s]+)(?::(?P<port>[^:]*))?")
NOT_IN_USERINFO = re.compile(r"[\[\]\s\x00-\x1f\x7f]")
BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
LONGEST_SOCKET = 107
"""Bytes in the path of a socket, on Linux."""
LAST_PORT, LAST_DATABASE = 65535, 2**31 - 1
ENCODE = (
    "Percent-encode special characters in the user name and the password (# %23, % %25, / %2F, ? %3F, @ %40, [ %5B), "
    "or put the password into redis.password_file."
)


class BadAddress(ValueError):
    """An address that cannot be used. `reason` is a stable code. The text never repeats the address."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is, and the credentials for it."""

    kind: str
    """`SINGLE`, `UNIX`, `SENTINEL` or `CLUSTER`: what `hosts` are."""
    hosts: tuple[tuple[str, int], ...] = ()
    """Host and port of each; none for a socket."""
    tls: bool = False
    username: str = ""
    password: str = field(default="", repr=False)
    path: str = ""
    """The socket's path."""
    master: str = ""
    """The name by which Sentinels know it."""
    database: int = 0
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def signed_in(self, password: str) -> RedisAddress:
        """The same address with this password; an empty password changes nothing."""
        return replace(self, password=password) if password else self

    @property
    def tls_options(self) -> dict[str, str | bool]:
        """The TLS options with redis-py's names and types; empty without TLS."""
        if not self.tls:
            return {}
        found = {name: text for name, text in self.options.items() if name in TLS_OPTIONS}
        flags = {name: text == "true" for name, text in found.items() if name == "ssl_check_hostname"}
        return {**found, **flags, "ssl": True}

    @property
    def sign_in(self) -> dict[str, str | None]:
        """User, password and connection name, as redis-py takes them."""
        return {
            "username": self.username or None,
            "password": self.password or None,
            "client_name": self.options.get("client_name"),
        }

    @property
    def without_secrets(self) -> str:
        if self.kind == UNIX:
            return self.path
        scheme = next(scheme for scheme, what in SCHEMES.items() if what == (self.kind, self.tls))
        path = {SINGLE: f"/{self.database}", SENTINEL: f"/{self.master}/{self.database}"}.get(self.kind, "")
        return f"{scheme}://{','.join(address_text(*each) for each in self.hosts)}{path}"


def address_text(host: str, port: int) -> str:
    """`host:7000`, `[::1]:7000`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_address(url: str) -> RedisAddress:
    """Read the whole address.

    Raises `BadAddress`: bad_scheme, no_host, bad_host, bad_port, host_twice, no_path, bad_path, no_master_name,
    bad_master_name, bad_database, cluster_database, bad_option, bad_user, bad_escape, bad_fragment.
    """
    try:
        return _read(url)
    except BadAddress as error:
        if "@" in url and ENCODE not in str(error):
            raise BadAddress(error.reason, f"{error} {ENCODE}") from None
        raise


def _read(url: str) -> RedisAddress:
    scheme, there, rest = url.partition("://")
    if not there:
        raise BadAddress(
            "bad_scheme",
            "the address has no scheme. Write for example redis://localhost:6379, or rediss:// for TLS, or "
            "unix:///path/of/the/socket.",
        )
    if scheme.lower() not in SCHEMES:
        raise BadAddress("bad_scheme", f"the address must begin with one of {', '.join(f'{s}://' for s in SCHEMES)}.")
    kind, tls = SCHEMES[scheme.lower()]
    if "#" in rest:
        raise BadAddress("bad_fragment", f"the address has a #, which ends an address. {ENCODE}")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    user, _, hosts = authority.rpartition("@")
    if NOT_IN_USERINFO.search(user):
        raise BadAddress(
            "bad_user", f"the user or the password contains a character that is not allowed there. {ENCODE}"
        )
    username, _, password = user.partition(":")
    options = _options(query, kind, tls)
    database = options.pop("db", "")
    if kind == UNIX:
        if hosts or not path:
            raise BadAddress("no_path", f"the address names no socket. Write for example {EXAMPLES[UNIX]}.")
        place: dict[str, str | tuple[tuple[str, int], ...]] = {"path": _socket(f"{slash}{path}")}
    else:
        place = {"hosts": _hosts(hosts, kind)}
    if kind == SENTINEL:
        place["master"], path = _master(path)
    return RedisAddress(
        kind,
        tls=tls,
        username=_decoded(username),
        password=_decoded(password),
        database=_database("" if kind == UNIX else path, database, kind),
        options=options,
        **place,  # type: ignore[arg-type]  # each value has the type of its own field
    )


def _decoded(text: str) -> str:
    """Percent-decoded. A `%` that begins no escape, and bytes that are not UTF-8, are rejected."""
    if BAD_ESCAPE.search(text):
        raise BadAddress("bad_escape", f"the address has a % that is not followed by two hex digits. {ENCODE}")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise BadAddress("bad_escape", f"the address has percent-encoded bytes that are not UTF-8. {ENCODE}") from None


def _socket(text: str) -> str:
    path = _decoded(text)
    if "\0" in path or len(path.encode()) > LONGEST_SOCKET:
        raise BadAddress("bad_path", f"a socket's path has at most {LONGEST_SOCKET} bytes, and no zero byte.")
    return path


def _hosts(text: str, kind: str) -> tuple[tuple[str, int], ...]:
    if not text.strip():
        raise BadAddress("no_host", f"the address names no host. Write for example {EXAMPLES[kind]}.")
    found = tuple(_host(part, kind) for part in (text.split(",") if kind != SINGLE else [text]))
    if len(set(found)) < len(found):
        raise BadAddress("host_twice", "the address names one host and port twice. Name each once.")
    return found


def _host(text: str, kind: str) -> tuple[str, int]:
    found = HOST.fullmatch(text)
    if not found or not _is_host(found) or (kind == SINGLE and "," in text):
        several = "" if kind == SINGLE else "hosts are separated by one comma each; "
        raise BadAddress(
            "bad_host",
            f"the address has no valid host: {several}an IPv6 address is written in [ ], "
            "and each part of a name between dots has 1 to 63 bytes. "
            f"Write for example {EXAMPLES[kind]}.",
        )
    port = found["six_port"] if found["six"] else found["port"]
    if port is None:
        return found["six"] or found["name"], PORTS[kind]
    if not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= LAST_PORT and len(port) < 6):
        raise BadAddress("bad_port", f"the address has no valid port. Ports are 1 to {LAST_PORT}.")
    return found["six"] or found["name"], int(port)


def _is_host(found: re.Match[str]) -> bool:
    """Whether it can be looked up: an IPv6 address, or a name of labels of 1 to 63 bytes (RFC 1035)."""
    try:
        if found["six"]:
            IPv6Address(found["six"])
        else:
            found["name"].encode("idna")
    except (AddressValueError, UnicodeError):
        return False
    return True


def _master(path: str) -> tuple[str, str]:
    """The master's name, and the rest of the path."""
    name, _, rest = path.rstrip("/").partition("/")
    if not name:
        raise BadAddress(
            "no_master_name",
            "the address lacks the name by which the Sentinels know the master (sentinel monitor NAME …). "
            f"Write for example {EXAMPLES[SENTINEL]}.",
        )
    if not MASTER_NAME.fullmatch(name):
        raise BadAddress("bad_master_name", "a master's name has letters, digits, dots, hyphens and underscores.")
    return name, rest


def _database(path: str, option: str, kind: str) -> int:
    text = path.removesuffix("/")
    if text and option and text != option:
        raise BadAddress("bad_database", "the address names a database in its path and another in ?db=. Name one.")
    text = text or option
    if kind == CLUSTER and text not in ("", "0"):
        raise BadAddress("cluster_database", "a cluster only has database 0. Remove everything after the hosts.")
    if text and not (text.isascii() and text.isdecimal() and len(text) < 11 and int(text) <= LAST_DATABASE):
        raise BadAddress("bad_database", f"the database must be a number, or be left out, as in {EXAMPLES[kind]}.")
    return int(text or 0)


def _options(query: str, kind: str, tls: bool) -> dict[str, str]:
    known: dict[str, frozenset[str]] = {"client_name": frozenset()}
    known |= {"db": frozenset()} if kind in (SINGLE, UNIX) else {}
    known |= dict.fromkeys(SENTINEL_OPTIONS, frozenset[str]()) if kind == SENTINEL else {}
    known |= TLS_OPTIONS if tls else {}
    found: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        value = _decoded(value)
        if name not in known or name in found:
            raise BadAddress(
                "bad_option",
                f"the address has an unknown option, or one twice: allowed after ? are {', '.join(sorted(known))}. "
                "ssl_… needs TLS (rediss). Time-outs are redis.timeout and redis.connect_timeout; a password is "
                "redis.password or password_file.",
            )
        found[name] = _checked(name, value, known[name])
    return found


def _checked(name: str, value: str, allowed: frozenset[str]) -> str:
    if allowed:
        if value.lower() not in allowed:
            raise BadAddress("bad_option", f"{name} is one of {', '.join(sorted(allowed))}.")
        return value.lower()
    if not value or (name == "client_name" and not (value.isascii() and value.isprintable() and " " not in value)):
        raise BadAddress("bad_option", f"{name} has no valid value: it is empty, or has a blank or special characters.")
    return value
