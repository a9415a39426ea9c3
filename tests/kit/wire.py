"""What a value is on the wire."""

from __future__ import annotations

import json
from typing import Any

import msgspec


def as_json(value: object) -> Any:
    """The value as a client reads it: encoded as the service does, and parsed by another."""
    return json.loads(msgspec.json.encode(value))
