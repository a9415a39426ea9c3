"""Pure. Makes text safe for a terminal: every unprintable character becomes an escape.

Unprintable are control characters (line ends, ESC, DEL, C1), characters that change the direction of text or have no
width, surrogates, and unassigned code points (`str.isprintable`).
"""

from __future__ import annotations


def visible(text: str) -> str:
    """The text with every unprintable character as an escape of Python: `\\x1b`, `\\n`, `\\u202e`."""
    return text if text.isprintable() else "".join(map(_python_escape, text))


def visible_json(text: str) -> str:
    """Compact JSON of the same meaning, with every unprintable character as an escape of JSON: `\\u001b`."""
    return text if text.isprintable() else "".join(map(_json_escape, text))


def json_escape(character: str) -> str:
    """The character as JSON's escape: one for each unit of UTF-16."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _python_escape(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def _json_escape(character: str) -> str:
    return character if character.isprintable() else json_escape(character)
