"""Addresses of subscribers."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receiver.outbox.subscribers.url import UrlPolicy, url_problems
from receiver.transport.url import checked_url

MAPPED = str(IPv6Address("::ffff:10.0.0.7"))
"""Python 3.13 writes the IPv4 address in it as such; earlier versions wrote it in hexadecimal."""


def judge(url: object, *, allow_http: bool = False) -> list[str]:
    private = {"10.0.0.7": "private", "127.0.0.1": "loopback", "::1": "loopback", MAPPED: "mapped"}
    return url_problems(url, UrlPolicy(allow_http=allow_http, forbidden=private.get))


@pytest.mark.parametrize(
    "url",
    [
        "https://finance.example",
        "https://finance.example/",
        "https://finance.example:443/hooks",
        "https://finance.example:8443/a/b?c=d&e=%20",
        "HTTPS://Finance.Example./hooks",
        "https://xn--bcher-kva.example/hooks",
        "https://billing/hooks",
        "https://a_b.svc.cluster.local:8080/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]:8443/",
        "https://1e100.net/",
        "https://finance.example/" + "a" * (2048 - 24),
    ],
)
def test_a_good_address_has_no_problem(url: str) -> None:
    """Names, punycode, names within a cluster, ports from 1024 up, and literals that are public."""
    assert judge(url) == []


def test_plain_http_is_for_those_who_allow_it() -> None:
    """The fix names the setting."""
    (problem,) = judge("http://finance.example/")
    assert "delivery.allow_http = true" in problem
    assert judge("http://finance.example:80/", allow_http=True) == []


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (None, "is missing"),
        ("", "is missing"),
        (7, "is missing"),
        ("finance.example/hooks", "is not absolute"),
        ("//finance.example/hooks", "is not absolute"),
        ("https:finance.example", "is not absolute"),
        ("/hooks", "is not absolute"),
        ("ftp://finance.example/", "must begin with https://"),
        ("javascript://finance.example/", "must begin with https://"),
        ("https:///hooks", "has no host"),
        ("https://:443/hooks", "has no host"),
        ("https://user@finance.example/", "must not hold a user name"),
        ("https://:hunter2@finance.example/", "must not hold a user name"),
        ("https://finance.example/#", "must not have a fragment"),
        ("https://finance.example/" + "a" * 2025, "has 2049 characters"),
        ("https://finance.example/a b", "has spaces or other characters"),
        (" https://finance.example/", "has spaces or other characters"),
        ("https://finance.example/\r\nhost: x", "has spaces or other characters"),
        ("https://bücher.example/", "has spaces or other characters"),
        ("https://finance.example\\@evil.example/", "has spaces or other characters"),
        ("https://finance.example:99999/", "cannot be split"),
        ("https://finance.example:x/", "cannot be split"),
        ("https://[::1/", "cannot be split"),
        ("https://finance.example:22/", "names port 22"),
        ("https://finance.example:0/", "names port 0"),
        ("https://-finance.example/", "has a host that is not a host name"),
        ("https://finance..example/", "has a host that is not a host name"),
        ("https://%66inance.example/", "has a host that is not a host name"),
        ("https://" + "a" * 64 + ".example/", "has a host that is not a host name"),
        ("https://" + "a." * 130 + "example/", "has a host that is not a host name"),
    ],
)
def test_a_bad_address_is_explained(url: object, problem: str) -> None:
    """One sentence, with the fix, and without the address, which may hold a password."""
    (found,) = judge(url)
    assert found.startswith(problem)
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://10.0.0.7/", "10.0.0.7 (private)"),
        ("https://127.0.0.1:8443/", "127.0.0.1 (loopback)"),
        ("https://[::1]/", "::1 (loopback)"),
        ("https://[0:0:0:0:0:0:0:1]/", "::1 (loopback)"),
        ("https://[::ffff:10.0.0.7]/", f"{MAPPED} (mapped)"),
        ("https://localhost:8443/", "127.0.0.1 (loopback)"),
        ("https://app.localhost./", "127.0.0.1 (loopback)"),
    ],
)
def test_a_literal_in_a_forbidden_range_is_told_at_once(url: str, address: str) -> None:
    """The operator learns it here, with the setting that would allow it, and not from a failing delivery."""
    assert judge(url) == [f"points to {address}; if that is meant, add its network to delivery.allow_networks"]


@pytest.mark.parametrize(
    "url",
    [
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.0.0.1./",
        "https://1.2.3.4.5/",
        "https://example.0x/",
        "https://256.256.256.256/",
        "https://[fe80::1%25eth0]/",
    ],
)
def test_an_address_in_disguise_is_refused(url: str) -> None:
    """Resolvers read these as IP addresses; a person who means well writes them plainly."""
    (problem,) = judge(url)
    assert problem.startswith("has a host that is neither a name nor a plain IP address")


def _some(*texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from(texts) | st.text("aA01.-_:/?#@[]%\\", max_size=8)


@given(
    st.builds(
        "".join,
        st.tuples(
            _some("https:", "HTTPS:", "http:", "Https:"),
            _some("//", "///", "/"),
            _some(
                "finance.example", "Finance.Example.", "1.2.3.4", "[2606:4700::1]", "[::FFFF:8.8.8.8]", "a_b", "x--y"
            ),
            _some("", ":", ":443", ":08443", ":8443"),
            _some("", "/", "//", "/hooks?a=b&c=%20", "?", "/%00", "/..;/"),
        ),
    )
)
@example("HTTPS://Finance.Example./hooks")
@example("https://[::FFFF:8.8.8.8]")
def test_whatever_is_taken_can_be_sent(url: str) -> None:
    """An address without a fault is one that the transport takes, and both see the same host in it."""
    seen: list[str] = []
    if url_problems(url, UrlPolicy(allow_http=True, forbidden=seen.append)):
        return
    origin = checked_url(url, True).origin
    assert origin.tls == url.lower().startswith("https:")
    host = origin.host.lower().rstrip(".")
    named = re.split("[/?#]", url.lower())[2].partition(":")[0].rstrip(".")
    assert host == named or [*map(ip_address, seen)] == [ip_address(host)]
