"""Reads every form of `redis.url`, and says what is wrong with one without repeating any of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.settings import load
from receiver.store.redis.address import CLUSTER, ENCODE, SENTINEL, SINGLE, UNIX, BadAddress, RedisAddress, read_address
from tests.kit.configuration import alone, only


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis://cache.internal", RedisAddress(SINGLE, (("cache.internal", 6379),))),
        ("REDIS://h:7/3/", RedisAddress(SINGLE, (("h", 7),), database=3)),
        ("redis://h?db=3", RedisAddress(SINGLE, (("h", 6379),), database=3)),
        ("redis://h/3?db=3", RedisAddress(SINGLE, (("h", 6379),), database=3)),
        ("rediss://[::1]:7/0", RedisAddress(SINGLE, (("::1", 7),), tls=True)),
        (
            "redis://app:a%23%2F%3F%40%5B%25b@h",
            RedisAddress(SINGLE, (("h", 6379),), username="app", password="a#/?@[%b"),
        ),
        ("redis://:a@b@h", RedisAddress(SINGLE, (("h", 6379),), password="a@b")),
        ("redis://:a:b+c@h", RedisAddress(SINGLE, (("h", 6379),), password="a:b+c")),
        ("redis://:%E2%82%AC@h", RedisAddress(SINGLE, (("h", 6379),), password="€")),
        (
            "redis://h/0?client_name=refunds@prod",
            RedisAddress(SINGLE, (("h", 6379),), options={"client_name": "refunds@prod"}),
        ),
        ("unix:///run/redis@x/r%20s.sock?db=2", RedisAddress(UNIX, path="/run/redis@x/r s.sock", database=2)),
        ("unix://app:pw@/run/r.sock", RedisAddress(UNIX, username="app", password="pw", path="/run/r.sock")),
        (
            "redis+sentinel://s1:26379,s2:26380/main",
            RedisAddress(SENTINEL, (("s1", 26379), ("s2", 26380)), master="main"),
        ),
        (
            "redis+sentinel://s1,[::1]:7,[fe80::1]/main/3",
            RedisAddress(SENTINEL, (("s1", 26379), ("::1", 7), ("fe80::1", 26379)), master="main", database=3),
        ),
        (
            "redis+sentinel://s1/main?sentinel_password=guard@se+cret",
            RedisAddress(SENTINEL, (("s1", 26379),), master="main", options={"sentinel_password": "guard@se+cret"}),
        ),
        (
            "rediss+sentinel://user:p%40ss%2C@s1/main?sentinel_password=g%26&ssl_ca_certs=/ca.pem",
            RedisAddress(
                SENTINEL,
                (("s1", 26379),),
                tls=True,
                username="user",
                password="p@ss,",
                master="main",
                options={"sentinel_password": "g&", "ssl_ca_certs": "/ca.pem"},
            ),
        ),
        ("redis+cluster://n1:7000,n2:7001", RedisAddress(CLUSTER, (("n1", 7000), ("n2", 7001)))),
        ("rediss+cluster://:pw@n1/0", RedisAddress(CLUSTER, (("n1", 6379),), tls=True, password="pw")),
    ],
)
def test_what_an_address_says(url: str, found: RedisAddress) -> None:
    """Ports may be omitted, IPv6 is in brackets, special characters in a password are percent-encoded; a plus stays a
    plus."""
    assert read_address(url) == found


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("localhost:6379", "bad_scheme"),
        ("redis:/h", "bad_scheme"),
        ("", "bad_scheme"),
        ("redis://:Hunter2#9x@h:6399/0", "bad_fragment"),
        ("redis://:Hunter2/9x@h:6399/0", "bad_host"),
        ("redis://app:Hunter2?9x@h:6399/0", "bad_option"),
        ("redis://app:6379/Hunter2@h", "bad_database"),
        ("redis://:Hunter2[9x@h:6399/0", "bad_user"),
        ("redis://:Hunter2]9x@h", "bad_user"),
        ("redis://:Hunter2 9x@h", "bad_user"),
        ("redis://:Hunter2%9x@h", "bad_escape"),
        ("redis://:Hunter2%@h", "bad_escape"),
        ("redis://:Hunter2%ff@h", "bad_escape"),
        ("redis://:Hunter2@", "no_host"),
        ("redis:///0", "no_host"),
        ("redis://h1,h2/0", "bad_host"),
        ("redis://127.0.0.1:63z9/0", "bad_port"),
        ("redis://h/zero", "bad_database"),
        ("redis://h/0/1", "bad_database"),
        ("redis://h/-1", "bad_database"),
        ("redis://h/99999999999", "bad_database"),
        ("redis://h/1?db=2", "bad_database"),
        ("redis://h?decode_responses=true", "bad_option"),
        ("redis://h?password=Hunter2", "bad_option"),
        ("redis://h?socket_timeout=x", "bad_option"),
        ("redis://h?ssl_ca_certs=/ca.pem", "bad_option"),
        ("rediss://h?ssl_cert_reqs=maybe", "bad_option"),
        ("rediss://h?ssl_keyfile=", "bad_option"),
        ("redis://h?client_name=two words", "bad_option"),
        ("redis://h?client_name=a&client_name=b", "bad_option"),
        ("unix://run/redis.sock", "no_path"),
        ("unix://", "no_path"),
        (f"unix:///{'s' * 107}", "bad_path"),
        ("unix:///run/a%00b", "bad_path"),
        ("redis://:Hunter2@a..b", "bad_host"),
        (f"redis://:Hunter2@{'a' * 64}.internal", "bad_host"),
        ("redis://:Hunter2@[1:2]", "bad_host"),
        ("redis+sentinel://s1,.s2/main", "bad_host"),
        ("redis+cluster://n1,[:::]:7000", "bad_host"),
        ("unix:///run/r.sock?ssl_ca_certs=/ca", "bad_option"),
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
    """A reason for each fault, and a message that repeats nothing of the address."""
    with pytest.raises(BadAddress) as caught:
        read_address(url)
    assert caught.value.reason == reason
    assert str(caught.value).endswith(".")
    assert "pw" not in str(caught.value)
    assert "Hunter2" not in str(caught.value)
    assert "9x" not in str(caught.value)
    assert (ENCODE in str(caught.value)) == ("@" in url or reason == "bad_escape")


def test_an_address_is_shown_without_anything_secret() -> None:
    """Neither in the text that is shown, nor in the value's own."""
    address = read_address("rediss+sentinel://user:hunter2@s1,[::1]:7/main/2?sentinel_password=hunter2")
    assert address.without_secrets == "rediss+sentinel://s1:26379,[::1]:7/main/2"
    assert "hunter2" not in repr(address)
    assert read_address("redis+cluster://:hunter2@n1").without_secrets == "redis+cluster://n1:6379"


def test_settings_refuse_what_cannot_be_used() -> None:
    """At the start, together with every other problem; the password may come from another setting."""
    assert only(alone(RECEIVER_REDIS__URL="redis+sentinel://s1,s2")).startswith(
        "redis.url: the address lacks the name by which the Sentinels know the master"
    )
    assert "redis+cluster://" in only(alone(RECEIVER_REDIS__URL="http://cache.example"))
    twice = alone(RECEIVER_REDIS__URL="redis+cluster://:x@n1,n2", RECEIVER_REDIS__PASSWORD="y")
    assert "the address holds a password already" in only(twice)


def test_a_password_of_its_own_is_no_part_of_the_address(tmp_path: Path) -> None:
    """It is used unchanged, even if the address contains an at sign or a percent sign elsewhere."""
    (tmp_path / "pw").write_text("\ufeffa#/?@[%zz b\r\n")
    for url in (
        "unix:///run/redis@x/redis.sock",
        "redis://127.0.0.1/0?client_name=refunds@prod",
        "redis+sentinel://s1/main?sentinel_password=a@b",
    ):
        environ = alone(RECEIVER_REDIS__URL=url, RECEIVER_REDIS__PASSWORD_FILE=str(tmp_path / "pw"))
        found = load(None, environ).redis.address
        assert found is not None
        assert found.password == "a#/?@[%zz b"
        assert found == read_address(url).signed_in("a#/?@[%zz b")


@pytest.mark.parametrize("text", ["", "\n", "\ufeff\r\n"])
def test_an_empty_password_file_is_said(tmp_path: Path, text: str) -> None:
    """It would sign in without a password, where one was meant."""
    (tmp_path / "pw").write_text(text)
    said = only(alone(RECEIVER_REDIS__URL="redis://h", RECEIVER_REDIS__PASSWORD_FILE=str(tmp_path / "pw")))
    assert said.startswith("redis.password_file: is empty.")


@pytest.mark.parametrize("secret", ["[q9x!Zr7", "{q9x!Zr7", "[1]", "{}", '"q9x', "true", "0123"])
def test_a_password_that_looks_like_json_is_text(secret: str) -> None:
    """Generated passwords begin with a bracket now and then."""
    environ = alone(RECEIVER_REDIS__URL="redis://h", RECEIVER_REDIS__PASSWORD=secret)
    found = load(None, environ).redis.address
    assert found is not None
    assert found.password == secret


def test_certificates_that_tls_cannot_use_are_said_at_the_start(tmp_path: Path) -> None:
    """A file that is no certificate would look like a Redis that cannot be reached."""
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no certificate\n")
    for query, said in (
        (f"ssl_ca_certs={rubbish}", "which holds no certificate in PEM"),
        (f"ssl_certfile={rubbish}", "ssl_certfile and ssl_keyfile belong together"),
        (f"ssl_certfile={rubbish}&ssl_keyfile={rubbish}", "are not a certificate and its key in PEM"),
        (f"ssl_ca_path={rubbish}", "which is not a directory"),
    ):
        problem = only(alone(RECEIVER_REDIS__URL=f"rediss://h?{query}"))
        assert problem.startswith("redis.url: "), problem
        assert said in problem


def test_a_wrong_address_in_a_file_names_the_file_setting(tmp_path: Path) -> None:
    """The key says where to look."""
    (tmp_path / "url").write_text("redis://h/zero")
    assert only(alone(RECEIVER_REDIS__URL_FILE=str(tmp_path / "url"))).startswith(
        "redis.url_file: the database must be"
    )
