"""Pure. The nesting depth of a JSON text, checked before it is parsed."""

from __future__ import annotations

import re
from typing import Final

MAX_DEPTH: Final = 16

_BRACKETS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""One bracket, or a whole string. Unterminated strings match too, so the scan stays linear."""


def too_deep(text: str) -> bool:
    """Whether the text is nested deeper than 16 levels. Runs in linear time."""
    # JSON inside a string counts too, so this is only the cheap half of the check.
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
