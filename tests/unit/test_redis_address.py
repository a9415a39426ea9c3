"""Addresses of Sentinels and clusters: what they say, and what is said of wrong ones."""

from __future__ import annotations

import pytest

from receiver.redis_address import BadAddress, Several, has_password, read_several
from tests.configuration import alone, only


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (
            "redis+sentinel://s1:26379,s2:26380/main",
            Several("sentinel", (("s1", 26379), ("s2", 26380)), master="main"),
        ),
        ("redis+sentinel://s1,[::1]:7,[fe80::1]/main/3", None),
        (
            "rediss+sentinel://user:p%40ss%2C@s1/main?sentinel_password=g%26&ssl_ca_certs=/ca.pem",
            Several(
                "sentinel",
                (("s1", 26379),),
                True,
                "user",
                "p@ss,",
                "main",
                0,
                {"sentinel_password": "g&", "ssl_ca_certs": "/ca.pem"},
            ),
        ),
        ("redis+cluster://n1:7000,n2:7001", Several("cluster", (("n1", 7000), ("n2", 7001)))),
        ("rediss+cluster://:pw@n1/0", Several("cluster", (("n1", 6379),), True, "", "pw")),
    ],
)
def test_what_an_address_says(url: str, found: Several | None) -> None:
    """Ports may be left out, IPv6 stands in brackets, what is special in a password is encoded."""
    expected = found or Several("sentinel", (("s1", 26379), ("::1", 7), ("fe80::1", 26379)), master="main", database=3)
    assert read_several(url) == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://s1/main", "bad_scheme"),
        ("redis+sentinel:s1/main", "bad_scheme"),
        ("redis+sentinel:///main", "no_host"),
        ("redis+sentinel://user:pw@/main", "no_host"),
        ("redis+sentinel://s1,,s2/main", "bad_host"),
        ("redis+sentinel://s1,/main", "bad_host"),
        ("redis+sentinel://fe80::1/main", "bad_host"),
        ("redis+sentinel://s1 s2/main", "bad_host"),
        ("redis+sentinel://s1:0/main", "bad_port"),
        ("redis+sentinel://s1:65536/main", "bad_port"),
        ("redis+sentinel://s1:/main", "bad_port"),
        ("redis+sentinel://s1:x/main", "bad_port"),
        ("redis+sentinel://s1,s1:26379/main", "host_twice"),
        ("redis+sentinel://s1:26379", "no_master_name"),
        ("redis+sentinel://s1:26379/", "no_master_name"),
        ("redis+sentinel://s1/ma:in", "bad_master_name"),
        ("redis+sentinel://s1/main/x", "bad_database"),
        ("redis+sentinel://s1/main/-1", "bad_database"),
        ("redis+sentinel://s1/main/0/0", "bad_database"),
        ("redis+cluster://n1/1", "cluster_database"),
        ("redis+cluster://n1?sentinel_password=x", "bad_option"),
        ("redis+sentinel://s1/main?ssl_ca_certs=/ca", "bad_option"),
        ("rediss+cluster://n1?ssl_check_hostname=maybe", "bad_option"),
        ("rediss+cluster://n1?socket_timeout=9", "bad_option"),
    ],
)
def test_what_is_wrong_with_an_address(url: str, reason: str) -> None:
    """A word for each fault, and a sentence that repeats nothing of the address."""
    with pytest.raises(BadAddress) as caught:
        read_several(url)
    assert caught.value.reason == reason
    assert str(caught.value).endswith(".")
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("redis+sentinel://s1,s2/main", False),
        ("redis+sentinel://user@s1,s2/main", False),
        ("redis+cluster://:pw@[::1]:7,[::2]:7", True),
        ("redis://user:pw@x", True),
        ("redis://user:@x", False),
    ],
)
def test_whether_there_is_a_password(url: str, there: bool) -> None:
    """In an address of any scheme."""
    assert has_password(url) is there


def test_an_address_is_shown_without_anything_secret() -> None:
    """Neither in the text that is shown, nor in the value's own."""
    address = read_several("rediss+sentinel://user:hunter2@s1,[::1]:7/main/2?sentinel_password=hunter2")
    assert address.shown == "rediss+sentinel://s1:26379,[::1]:7/main/2"
    assert "hunter2" not in repr(address)
    assert read_several("redis+cluster://:hunter2@n1").shown == "redis+cluster://n1:6379"


def test_settings_refuse_what_cannot_be_used() -> None:
    """At the start, together with every other problem; the password may come from a setting of its own."""
    assert only(alone(RECEIVER_REDIS__URL="redis+sentinel://s1,s2")).startswith(
        "redis.url_file: the address lacks the name by which the Sentinels know the master"
    )
    assert "redis+cluster://" in only(alone(RECEIVER_REDIS__URL="http://cache.example"))
    twice = alone(RECEIVER_REDIS__URL="redis+cluster://:x@n1,n2", RECEIVER_REDIS__PASSWORD="y")
    assert "the address holds a password already" in only(twice)
