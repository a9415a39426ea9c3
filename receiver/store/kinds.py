"""Edge: Redis. What is the matter with it, as one word of a closed set."""

from __future__ import annotations

from redis.exceptions import ConnectionError as RedisConnectionError

from receiver.store.tls import tls_kind

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
}
ALIASES = {"OUTOFMEMORY": "OOM", "BUSYLOADING": "LOADING", "AUTHENTICATION": "NOAUTH", "NOPERMISSION": "NOPERM"}
ALIASES |= {"MASTERNOTFOUND": "MASTERDOWN"}
"""redis-py makes classes of some of Redis's error codes, and then leaves the code out of the text."""


def kind_of(error: BaseException) -> str:
    """A word for what is the matter with Redis; the error's text may hold keys and values, and is not passed on."""
    if word := tls_kind(error):
        return word
    if type(error) is RedisConnectionError and error.__cause__ is not None:
        # redis-py 8 wraps so what goes wrong while it greets the server: a password, a time-out.
        return "unreachable" if (kind := kind_of(error.__cause__)) == "error" else kind
    name = type(error).__name__.removesuffix("Error").upper()
    for word in (ALIASES.get(name, name), str(error).split(" ", 1)[0]):
        if word in KINDS:
            return KINDS[word]
    if "TIMEOUT" in name:
        return "timeout"
    return "unreachable" if isinstance(error, RedisConnectionError | OSError) else "error"
