"""Edge: Redis. What is the matter with it, as one word of a closed set."""

from __future__ import annotations

from redis.exceptions import ConnectionError as RedisConnectionError

from receiver.errors import StoreUnavailable
from receiver.store.redis.damage import unreadable, wrong_type
from receiver.store.redis.keys import read_name
from receiver.store.redis.tls import tls_kind

KINDS = {
    "OOM": "full",
    "READONLY": "read_only",
    "LOADING": "loading",
    "MISCONF": "not_persisting",
    "NOREPLICAS": "replicas_missing",
    "NOAUTH": "not_authenticated",
    "WRONGPASS": "not_authenticated",
    "NOPERM": "not_permitted",
    "CLUSTERDOWN": "cluster_down",
    "MASTERDOWN": "master_down",
    "TRYAGAIN": "resharding",
    "NODATADIR": "data_dir_gone",
    "NOFORMAT": "format_unknown",
    "WRONGTYPE": "wrong_type",
    "FOREIGN": "wrong_type",
    "DAMAGED": "record_unreadable",
}
ALIASES = {"OUTOFMEMORY": "OOM", "BUSYLOADING": "LOADING", "AUTHENTICATION": "NOAUTH", "NOPERMISSION": "NOPERM"}
ALIASES |= {"MASTERNOTFOUND": "MASTERDOWN"}
"""redis-py makes classes of some of Redis's error codes, and then leaves the code out of the text."""


def error_code(error: BaseException) -> str:
    """A word for what is the matter with Redis; the error's text may hold keys and values, and is not passed on."""
    if word := tls_kind(error):
        return word
    if type(error) is RedisConnectionError and error.__cause__ is not None:
        # redis-py 8 wraps so what goes wrong while it greets the server: a password, a time-out.
        return "unreachable" if (kind := error_code(error.__cause__)) == "error" else kind
    name = type(error).__name__.removesuffix("Error").upper()
    for word in (ALIASES.get(name, name), str(error).split(" ", 1)[0]):
        if word in KINDS:
            return KINDS[word]
    if "TIMEOUT" in name:
        return "timeout"
    return "unreachable" if isinstance(error, RedisConnectionError | OSError) else "error"


def store_error(error: BaseException, key: str) -> StoreUnavailable:
    """What the failure of a command about this key is to callers.

    `FOREIGN <type> <key>` is the prelude's word for a key of a script, `DAMAGED <key> <part>` a script's for a record;
    Redis's own `WRONGTYPE` names no key.
    """
    kind = error_code(error)
    word, _, rest = str(error).partition(" ")
    found = ""
    if word in ("FOREIGN", "DAMAGED"):
        first, _, second = rest.partition(" ")
        found, key, part = (first, second, "") if word == "FOREIGN" else ("", first, second)
        if word == "DAMAGED":
            return unreadable(key, part)
    name = read_name(key) if kind == "wrong_type" else None
    if name is not None:
        return wrong_type(key, name.entry.type, found)
    return StoreUnavailable(f"Redis: {kind}.", reason=f"store_{kind}")
