"""Pure. Classifies IP addresses: those that a subscriber's address must not lead to, and those that belong to one
client.

The ranges are all of IANA's registries of special-purpose addresses for IPv4 and IPv6, multicast, the reserved part of
IPv6, and one address that a cloud provider uses specially.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from receiver.errors import ConfigurationError

Network = IPv4Network | IPv6Network

SPECIAL_IPV4: tuple[tuple[str, IPv4Network], ...] = tuple(
    (word, IPv4Network(network))
    for word, network in (
        ("unspecified", "0.0.0.0/32"),
        ("this_network", "0.0.0.0/8"),
        ("private", "10.0.0.0/8"),
        ("shared", "100.64.0.0/10"),
        ("loopback", "127.0.0.0/8"),
        # Azure's platform agent: metadata and credentials at a public address.
        ("cloud_metadata", "168.63.129.16/32"),
        ("cloud_metadata", "169.254.169.254/32"),
        ("link_local", "169.254.0.0/16"),
        ("private", "172.16.0.0/12"),
        ("protocol_assignments", "192.0.0.0/24"),
        ("documentation", "192.0.2.0/24"),
        ("as112", "192.31.196.0/24"),
        ("amt", "192.52.193.0/24"),
        ("6to4", "192.88.99.0/24"),
        ("private", "192.168.0.0/16"),
        ("as112", "192.175.48.0/24"),
        ("benchmarking", "198.18.0.0/15"),
        ("documentation", "198.51.100.0/24"),
        ("documentation", "203.0.113.0/24"),
        ("multicast", "224.0.0.0/4"),
        ("broadcast", "255.255.255.255/32"),
        ("reserved", "240.0.0.0/4"),
    )
)

SPECIAL_IPV6: tuple[tuple[str, IPv6Network], ...] = tuple(
    (word, IPv6Network(network))
    for word, network in (
        ("unspecified", "::/128"),
        ("loopback", "::1/128"),
        ("ipv4_compatible", "::/96"),
        ("nat64_local", "64:ff9b:1::/48"),
        ("discard", "100::/64"),
        ("dummy", "100:0:0:1::/64"),
        ("teredo", "2001::/32"),
        ("benchmarking", "2001:2::/48"),
        ("orchid", "2001:10::/28"),
        ("orchid", "2001:20::/28"),
        ("protocol_assignments", "2001::/23"),
        ("documentation", "2001:db8::/32"),
        ("6to4", "2002::/16"),
        ("as112", "2620:4f:8000::/48"),
        ("documentation", "3fff::/20"),
        ("segment_routing", "5f00::/16"),
        ("cloud_metadata", "fd00:ec2::254/128"),
        ("unique_local", "fc00::/7"),
        ("link_local", "fe80::/10"),
        ("site_local", "fec0::/10"),
        ("multicast", "ff00::/8"),
    )
)

GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All that IANA has allocated for use on the Internet; the rest of IPv6 is reserved."""

MAPPED = IPv6Network("::ffff:0:0/96")
NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: with this prefix, a network without IPv4 reaches public IPv4 servers, so it is not forbidden as such."""


def forbidden(address: str | IPv4Address | IPv6Address, allow: Sequence[Network] = ()) -> str | None:
    """The name of the special range that contains the address, or None if connecting to it is allowed.

    - An address in one of the `allow` networks is allowed.
    - For IPv4-mapped and NAT64 (64:ff9b::/96) addresses, the embedded IPv4 address is checked, also against `allow`.
    - 6to4, Teredo, IPv4-compatible and local NAT64 addresses are always refused: where they lead depends on the
      network. An `allow` network must name them as IPv6.
    - A scope (`fe80::1%eth0`) is ignored. A text that is not an address is "unreadable".
    """
    parsed = _parse(address)
    if parsed is None:
        return "unreadable"
    if any(parsed in network for network in allow):
        return None
    inside = _embedded(parsed) if isinstance(parsed, IPv6Address) else None
    if inside is not None:
        return forbidden(inside, allow)
    if isinstance(parsed, IPv4Address):
        return next((word for word, network in SPECIAL_IPV4 if parsed in network), None)
    word = next((word for word, network in SPECIAL_IPV6 if parsed in network), None)
    return word if word or parsed in GLOBAL_UNICAST else "reserved"


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse CIDRs such as `10.0.0.0/8` or `fd00::/8`; a single address is a network of one.

    Raises `ConfigurationError` with a sentence for each invalid one, including those with bits set after the prefix.
    """
    found: list[Network] = []
    problems: list[str] = []
    for text in texts:
        try:
            found.append(ip_network(text))
        except ValueError:
            problems.append(f"{text[:64]!r} is not a network: write the first address and the prefix, like 10.0.0.0/8.")
    if problems:
        raise ConfigurationError(problems)
    return tuple(found)


def is_address(host: str) -> bool:
    """Whether the host of a URL is an IP address in its usual form."""
    return _parse(host) is not None


def _parse(address: str | IPv4Address | IPv6Address) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return IPv6Address(int(parsed)) if isinstance(parsed, IPv6Address) else parsed


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in MAPPED or address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


@lru_cache(4096)
def client_of(host: str) -> str:
    """The client behind an address: the IPv4 address itself, or the /64 of an IPv6 address, all of which one client
    has.

    Anything else, such as the empty name of a Unix socket, is returned unchanged, up to 64 characters.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ip_network((address.packed[:8] + bytes(8), 64)))
    return str(address)


def is_loopback(host: str) -> bool:
    """Whether the host of a URL is this machine by its text alone; every name in `localhost` is, by RFC 6761."""
    name = host.lower().removesuffix(".")
    try:
        return name == "localhost" or name.endswith(".localhost") or ip_address(name).is_loopback
    except ValueError:
        return False
