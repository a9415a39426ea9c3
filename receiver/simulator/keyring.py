"""Edge: files. Keeps a simulator's keys in a folder, so that the receiver's configuration stays valid after a
restart."""

from __future__ import annotations

import os
from pathlib import Path

from receiver.errors import ConfigurationError
from receiver.simulator.keys import Keys, make_keys, make_signing_key, private_pem, read_keys

SIGNING_KEY, CERTIFICATE, MERCHANT_KEY = "sns-private-key.pem", "sns-certificate.pem", "merchant-private-key.pem"
DAY = 86_400_000


def load_or_make(folder: Path, now: int) -> Keys:
    """The keys in the folder; if it has none, new ones are written there (readable only by the owner).

    A signing certificate within a day of its end is replaced. Raises `ConfigurationError` if the files cannot be read
    or written, or do not belong together.
    """
    paths = [folder / name for name in (SIGNING_KEY, CERTIFICATE, MERCHANT_KEY)]
    try:
        if not any(path.exists() for path in paths):
            return _write(folder, make_keys(now))
        keys = read_keys(*(path.read_bytes() for path in paths))
        if keys.signing.certificate.not_valid_after_utc.timestamp() * 1000 < now + DAY:
            return _write(folder, Keys(make_signing_key(now), keys.merchant))
    except (OSError, ValueError, TypeError) as error:
        what = f"{folder}: the simulator's keys cannot be used ({type(error).__name__})."
        raise ConfigurationError([f"{what} Remove the folder, or name another."]) from error
    return keys


def _write(folder: Path, keys: Keys) -> Keys:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, pem in (
        (SIGNING_KEY, private_pem(keys.signing.private_key)),
        (CERTIFICATE, keys.signing.pem.encode()),
        (MERCHANT_KEY, keys.merchant_private_key_pem),
    ):
        _replace(folder / name, pem)
    return keys


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    fresh.replace(path)
