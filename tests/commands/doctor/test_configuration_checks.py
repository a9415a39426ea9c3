"""What the doctor reports about settings that are valid, but not advisable."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from receiver.commands.doctor.configuration import check_configuration, exposure
from receiver.commands.doctor.finding import Status
from tests.commands.doctor.kit import only, site, words
from tests.kit.configuration import SECRET, private_key, table
from tests.kit.processes import short_folder


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder right below /tmp, which all users may enter; pytest's own folder is private."""
    folder = short_folder()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def token(text: str, *scopes: str, name: str = "orders") -> dict[str, object]:
    return {"name": name, "sha256": sha256(text.encode()).hexdigest(), "scopes": list(scopes) or ["read"]}


GOOD = token("b1946ac92492d2347c6235b4d2611184")


async def test_good_settings_are_good() -> None:
    """Reported in numbers."""
    found = await check_configuration(site(tokens=[GOOD]))
    assert words(found) == {}
    assert "1 account, 1 token, 0 subscribers" in only(found, "configuration.settings").found


@pytest.mark.parametrize(
    ("mode", "reason"), [(0o600, ""), (0o640, ""), (0o644, "file_readable"), (0o666, "file_writable")]
)
async def test_secrets_that_strangers_can_read(short: Path, mode: int, reason: str) -> None:
    """Group access is how Kubernetes hands secrets over; the folders on the way count as well."""
    key = short / "open" / "key.pem"
    key.parent.mkdir()
    key.write_text(private_key())
    key.chmod(mode)
    account = {**table("us"), "private_key_file": str(key)}
    del account["private_key"]
    key.parent.chmod(0o755)
    found = await check_configuration(site(account, tokens=[GOOD]))
    assert words(found) == ({"configuration.secret_files": reason} if reason else {})
    if reason:
        assert "chmod o-rwx" in only(found, "configuration.secret_files").fix
    key.parent.chmod(0o700)
    assert exposure(key) is None


async def test_every_file_with_a_secret_is_looked_at(short: Path) -> None:
    """Those of every kind of subscriber, and of Flexible Payments."""
    held = {
        "slack": "https://hooks.slack.com/services/T0/B0/hunter2",
        "pager": "0123456789abcdef0123456789abcdef",
        "mail": "Bearer hunter2",
        "hook": SECRET,
        "fps": "hunter2/of+the/fps",
    }
    for name, text in held.items():
        (short / name).write_text(text)
        (short / name).chmod(0o644)
    fps = {"access_key_id": "AKIAEXAMPLE000000001", "secret_access_key_file": str(short / "fps")}
    url = "https://alerts.example/"
    subscribers = [
        {"name": "slack", "format": "slack", "url_file": str(short / "slack")},
        {"name": "pager", "format": "pagerduty", "routing_key_file": str(short / "pager")},
        {"name": "mail", "format": "alertmanager", "url": url, "authorization_file": str(short / "mail")},
        {"name": "hook", "url": url, "secret_file": str(short / "hook")},
    ]
    found = await check_configuration(site({**table("us"), "fps": fps}, tokens=[GOOD], subscribers=subscribers))
    told = {each.subject for each in found if each.reason == "file_readable"}
    assert told == {str(short / name) for name in held}


async def test_a_configuration_that_holds_secrets_is_one_itself(tmp_path: Path) -> None:
    """A password in redis.url counts; a file without any does not."""
    config = tmp_path / "receiver.toml"
    for text, files in (
        ('url = "redis://:hunter2@h"', "1 file"),
        ('routing_key = "hunter2"', "1 file"),
        ('authorization = "Bearer hunter2"', "1 file"),
        ('secret_access_key = "hunter2"', "1 file"),
        ('url = "https://hooks.slack.com/services/T0/B0/hunter2"', "1 file"),
        ('url = "https://prod-1.westus.logic.azure.com:443/workflows/1?api-version=1&sig=hunter2"', "1 file"),
        ("port = 8000", ""),
        ('routing_key_file = "key"', ""),
    ):
        config.write_text(text)
        config.chmod(0o600)
        found = [each.found for each in await check_configuration(site(tokens=[GOOD], config=config))]
        assert [each for each in found if "with secrets" in each] == (
            [f"{files} with secrets, not readable by other users of this machine"] if files else []
        )


@pytest.mark.parametrize("text", ["", "\n", "token", "changeme\n", "orders"])
async def test_a_token_that_everybody_would_try(text: str) -> None:
    """Its digest is known, and so is what went wrong."""
    found = only(await check_configuration(site(tokens=[token(text)])), "configuration.tokens")
    assert (found.status, found.reason) == (Status.FAIL, "token_guessable")
    assert ("empty" in found.found) is (not text.strip())


async def test_the_digest_of_the_example_is_refused() -> None:
    """A user who copies the file and forgets to replace the digest could not sign in."""
    found = only(await check_configuration(site(tokens=[{**GOOD, "sha256": "0" * 64}])), "configuration.tokens")
    assert (found.status, found.reason) == (Status.FAIL, "token_guessable")
    assert "the zeros of the example" in found.found


async def test_no_token_and_a_token_with_its_line_end() -> None:
    """`echo TOKEN | sha256sum` is a common slip."""
    assert words(await check_configuration(site())) == {"configuration.tokens": "no_tokens"}
    slip = site(tokens=[token("b1946ac92492d2347c6235b4\n")], token="b1946ac92492d2347c6235b4")
    found = [each for each in await check_configuration(slip) if each.reason]
    assert [each.reason for each in found] == ["token_with_line_end"]
    assert "printf" in found[0].fix


async def test_plain_http_and_a_relaxed_rule_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are allowed, and reported each time."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    here = site(
        tokens=[GOOD],
        ingest={"certificate_md5": "warn"},
        delivery={"allow_http": True, "allow_networks": ["10.0.0.0/8"]},
        subscribers=[{"name": "finance", "url": "http://10.0.0.7/hook", "secret": SECRET}],
    )
    assert words(await check_configuration(here)) == {
        "configuration.certificate_md5": "certificate_md5_warn",
        "configuration.subscriber_url": "plain_http",
        "configuration.trust_store": "trust_store_missing",
    }


async def test_a_user_header_that_is_believed_of_no_proxy() -> None:
    """It would be ignored, and the audit trail would name no person."""
    said = {"user_header": "X-Forwarded-User"}
    found = await check_configuration(site(tokens=[GOOD], http=said))
    assert words(found) == {"configuration.user_header": "user_header_untrusted"}
    assert "http.trusted_proxies" in only(found, "configuration.user_header").fix
    assert words(await check_configuration(site(tokens=[GOOD], http={**said, "trusted_proxies": ["10.0.0.5"]}))) == {}
