"""Pure. How deep a JSON text is nested, before anything reads it."""

from __future__ import annotations

import re
from typing import Final

MAX_DEPTH: Final = 16

_BRACKETS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""A whole string (also an unfinished one, so that the scan stays linear), or one bracket."""


def too_deep(text: str) -> bool:
    """Whether the text is nested deeper than 16 levels, in time that grows with its length alone."""
    # JSON inside a string counts here too, so this is only the cheap half of the check.
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _BRACKETS.finditer(text):
        match text[token.start()]:
            case "[" | "{":
                depth += 1
                if depth > MAX_DEPTH:
                    return True
            case "]" | "}":
                depth -= 1
    return False
