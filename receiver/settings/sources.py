"""Edge: files. Where settings come from: a TOML file, and over it the environment.

Everything is gathered into one plain tree first, and every problem on the way into one list, so that whoever starts
the service sees all that is wrong at once. (The sources of pydantic-settings stop at the first unreadable variable
and pass over unknown names in silence.)
"""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PREFIX = "RECEIVER_"
NOT_SETTINGS = frozenset({"RECEIVER_CONFIG", "RECEIVER_URL", "RECEIVER_TOKEN", "RECEIVER_TOKEN_FILE"})
"""Variables of the command line: where the settings are, and how to reach a running service."""

SERVICE_LINK = re.compile(
    r"RECEIVER(_[A-Z0-9]+)*_("
    r"SERVICE_HOST=.*|SERVICE_PORT(_[A-Z0-9_]+)?=\d+"
    r"|PORT=(tcp|udp|sctp)://.*|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*"
    r"|NAME=/.*|ENV_[A-Z].*)",
    re.DOTALL,
)
"""`name=value` of the variables that Kubernetes puts into every pod beside a Service called `receiver` or `receiver-…`
("Discovering services"), and Docker beside a linked container of that name."""

Tree = dict[str, Any]


def read_file(path: Path, problems: list[str]) -> Tree:
    """The TOML file as a tree; what prevents reading it is added to `problems`."""
    try:
        # With a byte order mark as well, which editors on Windows write.
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        problems.append(
            f"{path}: cannot be read ({error.strerror}). Give another path with --config or RECEIVER_CONFIG."
        )
    except UnicodeDecodeError:
        problems.append(f"{path}: is not UTF-8 text. Save it as UTF-8.")
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{path}: is not TOML. {error}.")
    except (RecursionError, ValueError):
        problems.append(f"{path}: cannot be read: it is nested too deep, or has a number of thousands of digits.")
    return {}


def read_environment(
    environ: Mapping[str, str], problems: list[str], takes_json: Callable[[Sequence[str]], bool]
) -> Tree:
    """`RECEIVER_HTTP__PORT=80` as `{"http": {"port": "80"}}`.

    A value that opens with `[` or `{` is JSON where the setting is a list or a table (`takes_json`, by the setting's
    path); anywhere else it is text, such as a password. An empty variable counts as absent: that is what Compose makes
    of `${NAME:-}`.
    """
    tree: Tree = {}
    for name in sorted(environ):
        value = environ[name].strip()
        if (
            not name.startswith(PREFIX)
            or name in NOT_SETTINGS
            or not value
            or SERVICE_LINK.fullmatch(f"{name}={value}")
        ):
            continue
        path = name.removeprefix(PREFIX).lower().split("__")
        *folders, leaf = path
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                problems.append(f"{name}: contradicts a shorter variable. Set one of the two.")
                break
        else:
            with contextlib.suppress(_NotJson):
                place[leaf] = _decoded(name, value, problems) if value[0] in "[{" and takes_json(path) else value
    return tree


class _NotJson(Exception):
    """Already among the problems."""


def _decoded(name: str, value: str, problems: list[str]) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        problems.append(f"{name}: opens like JSON but is not. Fix the JSON, or write a list as a,b,c.")
        raise _NotJson from None


def merge(under: Tree, over: Tree) -> Tree:
    """The tree `under` with `over` laid on it: tables are joined, everything else is replaced."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def one_account(tree: Tree, problems: list[str]) -> Tree:
    """`account` is the one account there is: alone (by environment), or laid over the only table of `accounts`."""
    single = tree.get("account")
    if not isinstance(single, dict):
        return tree
    rest = {key: value for key, value in tree.items() if key != "account"}
    accounts = rest.get("accounts") or [{}]
    if not isinstance(accounts, list) or len(accounts) != 1 or not isinstance(accounts[0], dict):
        problems.append(
            "account: RECEIVER_ACCOUNT__… describes the only account, and there are several [[accounts]]. "
            "Set it in the file, or all of them as JSON in RECEIVER_ACCOUNTS."
        )
        return rest
    return {**rest, "accounts": [merge(accounts[0], single)]}
