"""The settings of an account, and which problems are reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from receiver.settings import load
from tests.kit.configuration import CERTIFICATE_URL, TOPIC, alone, only, private_key, several, table


def test_private_key_with_escaped_line_ends() -> None:
    """A PEM whose line ends became `\\n` on the way through an environment variable is read."""
    environ = alone(RECEIVER_ACCOUNT__PRIVATE_KEY=private_key().replace("\n", "\\n"))
    assert load(None, environ).build_accounts()


@pytest.mark.parametrize(
    "topic",
    [
        "*",
        "arn:aws:sns:*",
        "arn:aws:sns:us-east-1:*",
        "arn:aws:sns:us-east-1:*:A3B*",
        "arn:aws:sns:*:291180941288:*",
        "arn:*:sns:us-east-1:291180941288:*",
        "arn:aws:sns:us-east-1:29118*:x",
    ],
)
def test_a_star_before_the_topic_name_is_refused_with_the_reason(topic: str) -> None:
    """Any AWS customer's topic would be believed, so such a pattern is never accepted."""
    problem = only(alone(RECEIVER_ACCOUNT__TOPIC_ARNS=f"{TOPIC},{topic}"))
    assert problem.startswith("accounts[0].topic_arns: entry 2 ")
    assert "notifications from any topic would be accepted" in problem


@pytest.mark.parametrize(
    "topic", ["A3BXB0", "arn:aws:sqs:us-east-1:291180941288:x", TOPIC + "\n;", "arn:aws:sns:us-east-1:291180941288:a*b"]
)
def test_what_is_not_a_topic_is_refused(topic: str) -> None:
    """Only an exact ARN, or one whose name ends in a star, is a topic."""
    assert "is not an SNS topic" in only(several(table("us", topic_arns=[topic])))


def test_a_topic_of_no_known_region_is_refused() -> None:
    """No certificate could ever be believed for it: every one of its notifications would be answered 503."""
    topic = "arn:aws:sns:us-east-9:291180941288:*"
    assert "names us-east-9" in only(several(table("us", topic_arns=[topic])))


def test_key_prefix_and_environment_must_agree() -> None:
    """Amazon refuses a LIVE key on sandbox paths; the sentence says which fix applies."""
    problem = only(alone(RECEIVER_ACCOUNT__ENVIRONMENT="live"))
    assert problem.startswith("accounts[0].environment: is live, but public_key_id begins with SANDBOX-.")
    problem = only(alone(RECEIVER_ACCOUNT__PUBLIC_KEY_ID="AG3EXAMPLE"))
    assert problem.startswith("accounts[0].environment: is missing")


def test_private_key_problems_are_explained(tmp_path: Path) -> None:
    """Both, none, unreadable, the wrong half and the wrong kind are distinguished."""
    key = tmp_path / "key.pem"
    key.write_text(private_key())
    both = alone(RECEIVER_ACCOUNT__PRIVATE_KEY_FILE=str(key))
    assert "contradicts private_key" in only(both)
    bare = {name: value for name, value in alone().items() if not name.endswith("PRIVATE_KEY")}
    assert "is missing, and so is private_key" in only(bare)
    gone = {**bare, "RECEIVER_ACCOUNT__PRIVATE_KEY_FILE": str(tmp_path / "gone.pem")}
    assert "cannot be read (No such file or directory)" in only(gone)
    public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    wrong = {**bare, "RECEIVER_ACCOUNT__PRIVATE_KEY_FILE": str(key)}
    assert "public key" in only(wrong)
    curve = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(curve.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    assert only(wrong).startswith("accounts[0].private_key_file: ")


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("http://pay.example", "plain http to another machine"),
        ("http://127.0.0.1.evil.example:1", "plain http to another machine"),
        ("https://u:p@pay.example", "more than scheme, host and port"),
        ("https://pay.example/v2", "more than scheme, host and port"),
        ("ftp://pay.example", "is not an address"),
        ("https://[::1", "is not an address"),
        ("pay.example", "is not an address"),
    ],
)
def test_unsafe_endpoints_are_refused(address: str, word: str) -> None:
    """Another Amazon Pay address is https, or http on this machine, and nothing but scheme, host and port."""
    assert word in only(alone(RECEIVER_ACCOUNT__ENDPOINT=address))


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9100", "http://localhost:1", "http://[::1]:1", "https://a.example"]
)
def test_safe_endpoints_pass(address: str) -> None:
    """The simulator on this machine, and any https address."""
    load(None, alone(RECEIVER_ACCOUNT__ENDPOINT=address))


@pytest.mark.parametrize("token", ["", " ", "two words", "two\nlines", "clé"])
def test_a_token_of_delegated_access_that_cannot_be_one_is_refused_at_the_start(tmp_path: Path, token: str) -> None:
    """Sent without it, calls would be the provider's own; with it, none would ever go out."""
    file = tmp_path / "authtoken"
    file.write_text(token)
    for given in ({"auth_token": token}, {"auth_token_file": str(file)}):
        problem = only(several(table("us", **given)))
        assert problem.startswith("accounts[0].auth_token")
        assert "must hold the merchant's token" in problem
    file.write_bytes(b"\xff\xfe")
    assert "is not text in UTF-8" in only(several(table("us", auth_token_file=str(file))))


def test_a_token_of_delegated_access_is_sent_as_it_was_given(tmp_path: Path) -> None:
    """But for the line end of a file."""
    file = tmp_path / "authtoken"
    file.write_text(" tok.en/1+=\r\n")
    (account,) = load(None, several(table("us", auth_token_file=str(file)))).build_accounts()
    assert account.endpoint.auth_token == "tok.en/1+="


def test_pinned_certificates_are_readable_and_can_be_named(tmp_path: Path) -> None:
    """A pinned certificate that no notification could name would never be used; one that is not there cannot be."""
    pem = tmp_path / "sns.pem"
    pem.write_bytes(b"x")
    assert "no notification can name" in only(several(table("us", signing_certificates={"https://x/": str(pem)})))
    assert "cannot be read" in only(several(table("us", signing_certificates={CERTIFICATE_URL: "gone.pem"})))


def test_two_accounts_of_one_merchant_and_environment_are_refused() -> None:
    """Live and sandbox of one merchant are two accounts; the same twice is a mistake."""
    assert only(several(table("a"), table("b"))).startswith(
        "accounts[1].merchant_id: A2ZABCDEFGHIJ in live is account a"
    )
    load(None, several(table("a"), table("b", environment="sandbox")))


def test_names_must_differ() -> None:
    """The name is the Redis hash tag and the path: two accounts cannot share it."""
    assert only(several(table("a"), table("a", merchant_id="A2OTHERMERCHANT"))).startswith(
        "accounts[1].name: a is used"
    )


@pytest.mark.parametrize("name", ["US", "-us", "a" * 33, "u s", "{us}", "us\n;"])
def test_account_names_are_safe_in_keys_and_paths(name: str) -> None:
    """Anything but a-z, 0-9, - and _ is refused."""
    assert only(several(table(name))).startswith("accounts[0].name: must match pattern")
