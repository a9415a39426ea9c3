"""What tests may use from outside the project: a variable `RECEIVER_TEST_…` names each thing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PREFIX, HIDDEN = "RECEIVER_TEST_", "TEST_"


def hide() -> None:
    """Rename the variables: the service takes every `RECEIVER_…` for a setting, and its processes inherit them."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        os.environ[HIDDEN + name.removeprefix(PREFIX)] = os.environ.pop(name)


def outside(name: str) -> str:
    """The value of `RECEIVER_TEST_<name>`; empty if it is not set."""
    return os.environ.get(HIDDEN + name, "")


def sample(name: str) -> Path:
    """A file or folder of captured notifications and signing vectors. Skips the test where no folder is named."""
    folder = outside("SAMPLES")
    if not folder:
        pytest.skip(f"set {PREFIX}SAMPLES to the folder of captured notifications and signing vectors")
    found = Path(folder) / name
    assert found.exists(), f"{PREFIX}SAMPLES: there is no {found}"
    return found
