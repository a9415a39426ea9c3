"""Edge: Redis. The Lua scripts, each with the prelude that checks the types of its keys before it writes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from receiver.store.redis.keys import Keys, kind_and_type

Command = tuple[str | bytes | int | float, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, and its SHA-1, by which Redis identifies it."""

    source: bytes
    sha: str
    keys: tuple[tuple[str, str], ...] = ()
    """The keys that it names at its head: the fixed part of each, and what it belongs to, if that varies."""
    optional: tuple[str, ...] = ()
    """Their kinds that it skips if they have the wrong type."""
    is_audited: bool = False
    """Whether it names the audit trail."""

    def names(self, account: Keys, of: Mapping[str, str]) -> list[str]:
        """The keys that it names. `of`: what the keys that vary belong to."""
        prefix = account.prefix
        return [prefix + fixed + of[what] if what else prefix + fixed for fixed, what in self.keys]

    def command(self, keys: list[str], args: list[str | int | bytes], without: Collection[str] = ()) -> Command:
        """The command that runs it by hash. `without`: kinds of keys to skip if they have the wrong type."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args, letters(keys, without))


HEAD = re.compile(r"^-- KEYS (.*\n(?:--      .*\n)*)", re.MULTILINE)
DECLARED = re.compile(r"[0-9]+ ([a-z_:]+)(?:\{([a-z]+)\})?(\?)?(?=[\s,;]|\Z)")
"""A script declares its keys in the comment at its head, in the order in which they are passed. `3 trail:{refund}?` is
the third key; it belongs to a refund, and is skipped if it has the wrong type."""
LETTERS = {"hash": "h", "zset": "z", "list": "l", "string": "s", "stream": "x", "any": "a"}
EPILOGUE = b"""
end
local answer = run()
if #notes == 0 or (type(answer) == 'table' and answer.err) then
  return answer
end
return {'NOTES', notes, answer}
"""


def letters(keys: Iterable[str], without: Collection[str] = ()) -> str:
    """The types that the keys should have, as letters for `prelude.lua`. Raises `KeyError` for an unknown kind."""
    found = ""
    for key in keys:
        kind, of_type = kind_and_type(key)
        found += LETTERS[of_type].upper() if kind in without else LETTERS[of_type]
    return found


@cache
def texts() -> dict[str, bytes]:
    """Name → text of every `.lua` file in the folders of the store."""
    return {
        file.name.removesuffix(".lua"): file.read_bytes()
        for folder in resources.files("receiver.store").iterdir()
        if folder.is_dir()
        for file in folder.iterdir()
        if file.name.endswith(".lua")
    }


@cache
def script(name: str) -> Script:
    """The script in `<name>.lua`, with the prelude."""
    prelude, helpers, body = (texts()[each] for each in ("prelude", "helpers", name))
    source = prelude + _needed(helpers, body) + b"local function run()\n" + body + EPILOGUE
    sha, head = hashlib.sha1(source, usedforsecurity=False).hexdigest(), HEAD.search(body.decode())
    found = DECLARED.findall(re.split(r"ARGV|, then", head[1])[0]) if head else []
    optional = tuple(fixed.removesuffix(":") for fixed, _, mark in found if mark)
    keys = tuple((fixed, what) for fixed, what, _ in found)
    return Script(source, sha, keys, optional, ("audit", "") in keys)


def _needed(helpers: bytes, body: bytes) -> bytes:
    """The helpers that a script uses, directly or indirectly: each of them costs time in every run."""
    needed = b""
    for part in reversed(helpers.split(b"\n\n")):
        names = re.findall(rb"^local (?:function )?(\w+)", part, re.MULTILINE)
        if any(re.search(rb"\b%s\b" % name, needed + body) for name in names):
            needed = part + b"\n\n" + needed
    return needed
