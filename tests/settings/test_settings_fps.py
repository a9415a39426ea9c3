"""The table `[accounts.fps]`: what it may be, and what is said when it cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.amazon.fps.calls import Version
from receiver.amazon.fps.signing import SignatureMethod
from receiver.settings import load
from tests.kit.configuration import alone, only, problems, several, table

KEY, SECRET = "AKIAEXAMPLE000000001", "hunter2/of+the/fps"


def legacy(**more: str) -> dict[str, str]:
    return {"access_key_id": KEY, "secret_access_key": SECRET, **more}


@pytest.mark.parametrize(
    ("environment", "host"), [("live", "https://fps.amazonaws.com/"), ("sandbox", "https://fps.sandbox.amazonaws.com/")]
)
def test_the_default_is_where_amazons_was(environment: str, host: str) -> None:
    """By the account's environment; the older version, as Amazon's guide shows the call."""
    (account,) = load(None, several(table("us", environment=environment, fps=legacy()))).build_accounts()
    assert account.fps is not None
    assert (account.fps.endpoint, account.fps.version, account.fps.method) == (
        host,
        Version.V2008_05_01,
        SignatureMethod.HMAC_SHA256,
    )


def test_without_the_table_there_is_none() -> None:
    (account,) = load(None, alone()).build_accounts()
    assert account.fps is None


def test_everything_can_come_from_the_environment(tmp_path: Path) -> None:
    """The secret from a file, without its line end."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    settings = load(
        None,
        alone(
            RECEIVER_ACCOUNT__FPS__ACCESS_KEY_ID=KEY,
            RECEIVER_ACCOUNT__FPS__SECRET_ACCESS_KEY_FILE=str(file),
            RECEIVER_ACCOUNT__FPS__ENDPOINT="http://127.0.0.1:9100/fps/",
            RECEIVER_ACCOUNT__FPS__VERSION="2010-08-28",
            RECEIVER_ACCOUNT__FPS__SIGNATURE_METHOD="HmacSHA1",
        ),
    )
    (account,) = settings.build_accounts()
    assert account.fps is not None
    assert account.fps.credentials.secret_access_key == SECRET
    assert (account.fps.endpoint, account.fps.version, account.fps.method) == (
        "http://127.0.0.1:9100/fps/",
        Version.V2010_08_28,
        SignatureMethod.HMAC_SHA1,
    )
    assert SECRET not in repr(account)
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("more", "key", "says"),
    [
        ({"access_key_id": "short"}, "access_key_id", "AWS access key id"),
        ({"secret_access_key": "hunter2 words"}, "secret_access_key_file", "visible ASCII"),
        ({"secret_access_key_file": "/nowhere"}, "secret_access_key_file", "contradicts"),
        ({"version": "2007-01-08"}, "version", "2008-05-01"),
        ({"signature_method": "MD5"}, "signature_method", "HmacSHA256"),
        ({"endpoint": "fps.example"}, "endpoint", "is not an address"),
        ({"endpoint": "https://fps.example/?a=1"}, "endpoint", "is not an address"),
        ({"endpoint": "http://fps.example/"}, "endpoint", "plain http"),
        ({"endpiont": "x"}, "endpiont", "Did you mean endpoint?"),
    ],
)
def test_what_cannot_work_is_a_sentence_without_the_secret(more: dict[str, str], key: str, says: str) -> None:
    """Each names its key."""
    problem = only(several(table("us", fps=legacy(**more))))
    assert problem.startswith(f"accounts[0].fps.{key}: ")
    assert says in problem
    assert "hunter2" not in problem


def test_what_is_missing_is_told_at_once() -> None:
    """Both halves of the key."""
    found = problems(several(table("us", fps={"endpoint": "https://fps.example/"})))
    assert [each.partition(":")[0] for each in found] == [
        "accounts[0].fps.access_key_id",
        "accounts[0].fps.secret_access_key_file",
    ]
