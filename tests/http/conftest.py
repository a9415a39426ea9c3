"""The stand-in for Amazon SNS whose certificate the service believes."""

from __future__ import annotations

import pytest

from tests.kit.sns import SnsSigner


@pytest.fixture(scope="session")
def sns() -> SnsSigner:
    """Signs as Amazon does."""
    return SnsSigner()
