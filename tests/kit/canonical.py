"""Requests, and the canonical form on which Amazon's SDKs agree. Used to test the signer and the simulator's check.

The cases are those of the unit tests of Amazon's Java SDK (which writes the region as EU) and .NET SDK (eu).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

HOST = "pay-api.amazon.eu"
NO_BODY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RESERVED = '@#$%^&+=/,?><`";:\\|][{} '
ENCODED = "%40%23%24%25%5E%26%2B%3D%2F%2C%3F%3E%3C%60%22%3B%3A%5C%7C%5D%5B%7B%7D%20"


@dataclass(frozen=True, slots=True)
class Canonical:
    """A request without a body, and what of it is signed."""

    method: str
    path: str
    parameters: Sequence[tuple[str, str]]
    canonical_path: str
    canonical_query: str
    hashes: Sequence[tuple[str, str]]
    """Region as it is written → SHA-256 of the canonical request."""

    @property
    def query(self) -> str:
        """The parameters as a client encodes them."""
        return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in self.parameters)

    def headers(self, region: str) -> dict[str, str]:
        """The headers, all of which are signed."""
        return {
            "accept": "application/json",
            "content-type": "application/json",
            "x-amz-pay-date": "20180524T223710Z",
            "x-amz-pay-host": HOST,
            "x-amz-pay-region": region,
        }

    def text(self, region: str) -> str:
        """The canonical request, line by line."""
        return "\n".join(
            (
                self.method,
                self.canonical_path,
                self.canonical_query,
                "accept:application/json",
                "content-type:application/json",
                "x-amz-pay-date:20180524T223710Z",
                f"x-amz-pay-host:{HOST}",
                f"x-amz-pay-region:{region}",
                "",
                "accept;content-type;x-amz-pay-date;x-amz-pay-host;x-amz-pay-region",
                NO_BODY,
            )
        )


CASES: list[Canonical] = [
    Canonical(
        "GET",
        "/",
        [],
        "/",
        "",
        [
            ("EU", "bb49552975c396f1e49d5510e1555b8b0627dc491bc61aaefdb561f202ad8020"),
            ("eu", "13fdf6db844bdfb9e9c0e27a4251ca04e60c29ca2132249c5dd1cb09c26e22f5"),
        ],
    ),
    Canonical("GET", "", [], "/", "", [("EU", "bb49552975c396f1e49d5510e1555b8b0627dc491bc61aaefdb561f202ad8020")]),
    Canonical(
        "GET",
        f"/{UNRESERVED}",
        [],
        f"/{UNRESERVED}",
        "",
        [
            ("EU", "a0e5dd63e175587f29d51c6b08be5c746a568209ac66ab1f967e0ba515aa80bc"),
            ("eu", "585e034d38ed3d64c0cd77a9f357a4b4a0fc093eebe06f4b06f66845e3543038"),
        ],
    ),
    Canonical(
        "GET", "/ሴ", [], "/%E1%88%B4", "", [("EU", "77f6544c8fb336d430895659da1e30415a1558b4b013f4d7926bb3a6275f701d")]
    ),
    Canonical(
        "GET",
        "/",
        [("ሴ", "bar")],
        "/",
        "%E1%88%B4=bar",
        [
            ("EU", "ef1007307504f2ca9f0b6310b04056f5d3d6d18e7bf3d90663133f19ec132ecc"),
            ("eu", "f0597d2fdcf97baf28002461796e916a74e35073b44042296d2ed45bacf6ecf0"),
        ],
    ),
    Canonical(
        "POST",
        "/",
        [],
        "/",
        "",
        [
            ("EU", "54156f5badd6da7fa630b2c334c808ad376530001d334ae9960457215aa626d3"),
            ("eu", "322307b5dae22c3d59350c3de9202a488f337f674c8f430b186282008264bd2b"),
        ],
    ),
    Canonical(
        "POST",
        "/",
        [("foo", "bar")],
        "/",
        "foo=bar",
        [
            ("EU", "cc82525870b2d03666c287fd8b2c0d2fc6fa1693d9f357d27f7cac8cbcc12832"),
            ("eu", "9d61b5abddbfdcaf7810a8e83dfffe0a5d5f272d2676c0550d974d5383e94cd5"),
        ],
    ),
    Canonical(
        "GET",
        "/",
        [("foo", "bar")],
        "/",
        "foo=bar",
        [("EU", "6837f80baf1801c75db8119cffbadc26a89d20adb9cf3f3de4ce0fac31b4ae52")],
    ),
    Canonical(
        "GET",
        "/",
        [("foo", "b"), ("foo", "a")],
        "/",
        "foo=a&foo=b",
        [
            ("EU", "a33266ec31c7f0ca8a0738eb49fb8c81319f14374a0b86d52e6911a9748a6d42"),
            ("eu", "937de37fb8aed8af4214c373580c72f40c525202d1975df6836ba6ed0062b902"),
        ],
    ),
    Canonical(
        "GET",
        "/",
        [("a", "foo"), ("b", "foo")],
        "/",
        "a=foo&b=foo",
        [
            ("EU", "6615ba7ca3734e97b35013f77c74d111ce2fa63ab52be161ad41bcd4b010120f"),
            ("eu", "457de2535eedbd6ef25f5c8ec4653ee885b99838d722189928f4fdf8d3c3ef4f"),
        ],
    ),
    Canonical(
        "GET",
        "/",
        [("A.1", "foo"), ("A.2", "foo"), ("A.10", "foo")],
        "/",
        "A.1=foo&A.10=foo&A.2=foo",
        [
            ("EU", "29d908d70c4bb50d62272976787245b52ed52e569fdae56ef3aa6d8979978ee7"),
            ("eu", "43ae5290e6742d30e3822b62b6d759afedafbe01534f778175c336b455d632e7"),
        ],
    ),
    Canonical(
        "GET",
        "/",
        [("foo", "Zoo"), ("foo", "aha")],
        "/",
        "foo=Zoo&foo=aha",
        [
            ("EU", "f379cbd2e2fc9d5d50667a07ec22996335f731b474bb8bd366647d05d958c9d5"),
            ("eu", "7a4d89bd832cb93f2102f66bc8d3a0bc5f224c0bb758eab261dcd34a8ed2f117"),
        ],
    ),
    Canonical(
        "GET",
        "/",
        [(UNRESERVED, UNRESERVED)],
        "/",
        f"{UNRESERVED}={UNRESERVED}",
        [
            ("EU", "892abddd6e79db3feb5695b318af639c3e863494f6b4df32ec24fff4c1562a73"),
            ("eu", "aa69ca06d93d9220f9aa16314d8556e18e1b0ae39802cd169bd3af6c08cd7164"),
        ],
    ),
    Canonical(
        "POST",
        "/",
        [(RESERVED, RESERVED)],
        "/",
        f"{ENCODED}={ENCODED}",
        [
            ("EU", "66bbbf2b5d6d297a9393abbc0b4f9d62e30666bb0ec0dea8f1d4e45551440e4c"),
            ("eu", "50709f5220d06911feee2d6aa8bf8453c8517f44527c0912e62b905d26c7e08f"),
        ],
    ),
    Canonical(
        "POST",
        "/",
        [("f oo", "b ar")],
        "/",
        "f%20oo=b%20ar",
        [
            ("EU", "99be3aeb19b5a1aebafc807d59f3740d3e604ae31cf928592fa70739ea64bb32"),
            ("eu", "79481e4e38a053f7be8bda701c0d302d39df18bf468578b133c3be8e93fea86a"),
        ],
    ),
    Canonical(
        "GET", "///foo//", [], "/foo/", "", [("eu", "d8e13e1857bc9b5056cc8ccb2699812faa2c68960e00483b1390fdaf4a991cc4")]
    ),
]
