"""Which addresses are not public: every range of IANA's registries, and every way to wrap an address in another."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import ConfigurationError
from receiver.transport.addresses import forbidden, networks

FORBIDDEN = {
    # IANA IPv4 Special-Purpose Address Registry, first and last address of each range
    "0.0.0.0": "unspecified",
    "0.0.0.1": "this_network",
    "0.255.255.255": "this_network",
    "10.0.0.0": "private",
    "10.255.255.255": "private",
    "100.64.0.0": "shared",
    "100.100.100.200": "shared",
    "100.127.255.255": "shared",
    "127.0.0.1": "loopback",
    "127.255.255.255": "loopback",
    "169.254.0.0": "link_local",
    "169.254.255.255": "link_local",
    "172.16.0.0": "private",
    "172.31.255.255": "private",
    "192.0.0.0": "protocol_assignments",
    "192.0.0.192": "protocol_assignments",
    "192.0.0.255": "protocol_assignments",
    "192.0.2.0": "documentation",
    "192.31.196.1": "as112",
    "192.52.193.1": "amt",
    "192.88.99.1": "6to4",
    "192.168.0.0": "private",
    "192.168.255.255": "private",
    "192.175.48.1": "as112",
    "198.18.0.0": "benchmarking",
    "198.19.255.255": "benchmarking",
    "198.51.100.7": "documentation",
    "203.0.113.255": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.0": "reserved",
    "255.255.255.254": "reserved",
    "255.255.255.255": "broadcast",
    # where clouds keep credentials
    "169.254.169.254": "cloud_metadata",
    "168.63.129.16": "cloud_metadata",
    "fd00:ec2::254": "cloud_metadata",
    # IANA IPv6 Special-Purpose Address Registry
    "::": "unspecified",
    "::1": "loopback",
    "64:ff9b:1::1": "nat64_local",
    "64:ff9b:1:ffff:ffff:ffff:808:808": "nat64_local",
    "100::": "discard",
    "100:0:0:1::1": "dummy",
    "2001::1": "teredo",
    "2001:0:808:808::": "teredo",
    "2001:1::1": "protocol_assignments",
    "2001:2::1": "benchmarking",
    "2001:3::1": "protocol_assignments",
    "2001:4:112::1": "protocol_assignments",
    "2001:10::1": "orchid",
    "2001:20::1": "orchid",
    "2001:30::1": "protocol_assignments",
    "2001:1ff:ffff::1": "protocol_assignments",
    "2001:db8::1": "documentation",
    "2002::1": "6to4",
    "2002:7f00:1::": "6to4",
    "2002:808:808::1": "6to4",
    "2620:4f:8000::1": "as112",
    "3fff::1": "documentation",
    "3fff:fff:ffff::1": "documentation",
    "5f00::1": "segment_routing",
    "fc00::1": "unique_local",
    "fdff:ffff::1": "unique_local",
    "fe80::1": "link_local",
    "febf::1": "link_local",
    "fec0::1": "site_local",
    "feff::1": "site_local",
    "ff02::1": "multicast",
    # what IPv6 has not given out
    "4000::1": "reserved",
    "1::1": "reserved",
    "fe00::1": "reserved",
    "64:ff9a::1": "reserved",
    # IPv4 inside IPv6
    "::ffff:127.0.0.1": "loopback",
    "::ffff:10.1.2.3": "private",
    "::ffff:a9fe:a9fe": "cloud_metadata",
    "::ffff:0.0.0.0": "unspecified",
    "::127.0.0.1": "ipv4_compatible",
    "::8.8.8.8": "ipv4_compatible",
    "64:ff9b::127.0.0.1": "loopback",
    "64:ff9b::a9fe:a9fe": "cloud_metadata",
    # with a scope
    "fe80::1%eth0": "link_local",
    "::1%1": "loopback",
    "::ffff:127.0.0.1%1": "loopback",
    # no address
    "": "unreadable",
    "localhost": "unreadable",
    "2130706433": "unreadable",
    "0x7f.1": "unreadable",
    "0177.0.0.1": "unreadable",
    "127.1": "unreadable",
    "::ffff:127.0.0.1.": "unreadable",
    "10.0.0.1/8": "unreadable",
}

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.0.3.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700::1111",
    "3ffe::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2606:4700::1111%eth0",
]

ALLOWED = [
    ("10.0.0.0/8", "10.1.2.3"),
    ("10.0.0.0/8", "::ffff:10.1.2.3"),
    ("10.0.0.0/8", "64:ff9b::10.1.2.3"),
    ("10.1.2.3", "10.1.2.3"),
    ("127.0.0.0/8", "127.0.0.1"),
    ("::1", "::1"),
    ("::1", "::1%lo"),
    ("fd00::/8", "fd12::1"),
    ("2002::/16", "2002:0a01:0203::1"),
]

STILL_FORBIDDEN = [
    ("10.0.0.0/8", "192.168.0.1", "private"),
    ("10.0.0.0/8", "::ffff:192.168.0.1", "private"),
    ("10.0.0.0/8", "2002:0a01:0203::1", "6to4"),
    ("10.0.0.0/8", "::10.1.2.3", "ipv4_compatible"),
    ("fd00::/16", "fd12::1", "unique_local"),
]


@pytest.mark.parametrize(("address", "word"), FORBIDDEN.items())
def test_every_special_range_has_a_word(address: str, word: str) -> None:
    """Both ends of the ranges; a wrapped address has the reason of the address inside."""
    assert forbidden(address) == word


@pytest.mark.parametrize("address", PUBLIC)
def test_the_neighbours_of_the_ranges_are_public(address: str) -> None:
    """And so are IPv4-mapped and NAT64 forms of public addresses: they lead there."""
    assert forbidden(address) is None


@pytest.mark.parametrize(("network", "address"), ALLOWED)
def test_an_allowed_network_admits_its_addresses(network: str, address: str) -> None:
    """In every form that leads to the same host."""
    assert forbidden(address, networks([network])) is None


@pytest.mark.parametrize(("network", "address", "word"), STILL_FORBIDDEN)
def test_an_allowed_network_admits_nothing_else(network: str, address: str, word: str) -> None:
    """6to4 does not lead to the address inside on every network."""
    assert forbidden(address, networks([network])) == word


def test_wrong_networks_are_told_all_at_once() -> None:
    """Each with the fix."""
    with pytest.raises(ConfigurationError) as caught:
        networks(["10.0.0.0/8", "10.0.0.1/8", "ten", "::/129"])
    assert [problem.split(" is not")[0] for problem in caught.value.problems] == ["'10.0.0.1/8'", "'ten'", "'::/129'"]


@given(st.ip_addresses(v=4))
def test_whatever_python_calls_private_is_forbidden_in_ipv4(address: IPv4Address) -> None:
    """The standard library's table as an independent oracle, also through a mapped and a NAT64 address."""
    word = forbidden(address)
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert word is not None
    assert forbidden(f"::ffff:{address}") == word
    assert forbidden(f"64:ff9b::{address}") == word


@given(st.ip_addresses(v=6))
def test_whatever_python_calls_private_is_forbidden_in_ipv6(address: IPv6Address) -> None:
    """The standard library's table as an independent oracle."""
    mapped = address.ipv4_mapped
    judged = mapped or address
    if not judged.is_global or judged.is_multicast or (mapped is None and address.is_site_local):
        assert forbidden(address) is not None


@given(st.text(max_size=40))
def test_any_text_has_an_answer(text: str) -> None:
    """What is no address is unreadable, and so refused."""
    try:
        ip_address(text)
    except ValueError:
        assert forbidden(text) == "unreadable"
