"""Configurations for tests: as environments and files, and the problems of wrong ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import ConfigurationError
from receiver.settings import load
from tests.kit.accounts import merchant_key_pem

TOPIC = "arn:aws:sns:us-east-1:291180941288:A3BXB0YN3XH17HA2K7NDRCTOTPW9"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
CERTIFICATE_URL = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"


def private_key() -> str:
    """The merchant's key as text."""
    return merchant_key_pem().decode()


def alone(**more: str) -> dict[str, str]:
    """A single account by environment."""
    return {
        "RECEIVER_ACCOUNT__MERCHANT_ID": "A2ZABCDEFGHIJ",
        "RECEIVER_ACCOUNT__REGION": "na",
        "RECEIVER_ACCOUNT__PUBLIC_KEY_ID": "SANDBOX-AG3EXAMPLE",
        "RECEIVER_ACCOUNT__PRIVATE_KEY": private_key(),
        "RECEIVER_ACCOUNT__TOPIC_ARNS": TOPIC,
        **more,
    }


def table(name: str, **more: Any) -> dict[str, Any]:
    """One account as JSON would give it."""
    return {
        "name": name,
        "merchant_id": "A2ZABCDEFGHIJ",
        "region": "na",
        "environment": "live",
        "public_key_id": "AG3EXAMPLE",
        "private_key": private_key(),
        "topic_arns": [TOPIC],
        **more,
    }


def several(*tables: Mapping[str, Any], **more: str) -> dict[str, str]:
    return {"RECEIVER_ACCOUNTS": json.dumps(tables), **more}


def problems(environ: Mapping[str, str], path: Path | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(path, environ)
    return list(caught.value.problems)


def only(environ: Mapping[str, str], path: Path | None = None) -> str:
    found = problems(environ, path)
    assert len(found) == 1, found
    return found[0]


def written(folder: Path, text: str) -> Path:
    path = folder / "receiver.toml"
    path.write_text(text, "utf-8")
    return path
