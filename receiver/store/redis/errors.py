"""Edge: Redis. Maps Redis errors to error codes."""

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
"""redis-py turns some of Redis's error codes into classes and then leaves the code out of the text."""


def error_code(error: BaseException) -> str:
    """The code for an error of Redis. The error's text is not passed on, because it may contain keys and values."""
    if word := tls_kind(error):
        return word
    if type(error) is RedisConnectionError and error.__cause__ is not None:
        # redis-py 8 wraps what goes wrong during the handshake, such as a wrong password or a time-out.
        return "unreachable" if (kind := error_code(error.__cause__)) == "error" else kind
    name = type(error).__name__.removesuffix("Error").upper()
    for word in (ALIASES.get(name, name), str(error).split(" ", 1)[0]):
        if word in KINDS:
            return KINDS[word]
    if "TIMEOUT" in name:
        return "timeout"
    return "unreachable" if isinstance(error, RedisConnectionError | OSError) else "error"


def store_error(error: BaseException, key: str) -> StoreUnavailable:
    """The error to raise for a failed command about this key.

    A script reports a key of the wrong type as `FOREIGN <type> <key>`, and a damaged record as `DAMAGED <key> <part>`.
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
