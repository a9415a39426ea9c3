"""Pure. The `traceparent` that a request brings (W3C Trace Context): kept with what the request causes, and passed on.

The service records no spans of its own, so what is passed on is what came, byte for byte. `tracestate` is not.
"""

from __future__ import annotations

import re
from typing import Final

ANY_VERSION: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)
"""W3C Trace Context, 3.2: version (never ff), trace id, parent id (neither all zeros), flags; later versions add."""
FORM: Final = "00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
"""A text of version 00, and of a bounded length: nothing else is passed on. ECMA 262 reads it alike."""
PASSED_ON: Final = re.compile(FORM)


def passed_on(text: str) -> str:
    """The `traceparent` as it is passed on: itself, or empty for one that is not valid or of a later version."""
    return text if PASSED_ON.fullmatch(text) else ""


def in_the_log(text: str) -> dict[str, str]:
    """`trace_id` of a `traceparent`, for log lines; nothing where it is not valid."""
    match = ANY_VERSION.fullmatch(text)
    if match is None or (match[1] == "00" and match[4]):
        return {}
    return {"trace_id": match[2]}
