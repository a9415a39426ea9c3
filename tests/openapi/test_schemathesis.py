"""Schemathesis over the whole API: the requests that it generates from the description, valid and invalid, are answered
as described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.openapi.stage import house, schemathesis

EXAMPLES = 4
"""Random examples of each operation, in addition to some thousand cases that follow from the description alone."""


@pytest.mark.timeout(400)
async def test_schemathesis_finds_nothing(redis: Any, valkey_url: str, tmp_path: Path) -> None:
    """With the same cases every time; `python -m tests.openapi --examples 1000` looks longer."""
    async with house(valkey_url, tmp_path) as place:
        code, said = await schemathesis(place, tmp_path, EXAMPLES, "--phases", "examples,coverage,fuzzing")
    assert code == 0, said
    assert "0 failed" not in said
    assert int(said.partition(" generated,")[0].split()[-1]) > 800, said
