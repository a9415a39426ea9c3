"""Edge: files. The sources of settings: a TOML file, overridden by the environment.

All settings are first merged into one plain tree, and all problems are collected in one list, so that an operator sees
every problem at once. (The sources of pydantic-settings stop at the first unreadable variable and silently ignore
unknown names.)
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PREFIX = "RECEIVER_"
NOT_SETTINGS = frozenset({"RECEIVER_CONFIG", "RECEIVER_URL", "RECEIVER_TOKEN", "RECEIVER_TOKEN_FILE"})
"""Variables of the command line: the settings file, and the address and token of a running service."""

SERVICE_LINK = re.compile(
    r"RECEIVER(_[A-Z0-9]+)*_("
    r"SERVICE_HOST=.*|SERVICE_PORT(_[A-Z0-9_]+)?=\d+"
    r"|PORT=(tcp|udp|sctp)://.*|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*"
    r"|NAME=/.*|ENV_[A-Z].*)",
    re.DOTALL,
)
"""`name=value` of the variables that Kubernetes sets in every pod for a Service named `receiver` or `receiver-…`
("Discovering services"), and Docker for a linked container of that name."""

Tree = dict[str, Any]


def read_file(path: Path, problems: list[str]) -> Tree:
    """The TOML file as a tree. If it cannot be read, the reason is added to `problems`."""
    try:
        # Also with a byte order mark, which editors on Windows write.
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
        problems.append(f"{path}: cannot be read: it is nested too deeply, or has a number with thousands of digits.")
    return {}


def read_environment(
    environ: Mapping[str, str], problems: list[str], takes_json: Callable[[Sequence[str]], bool]
) -> Tree:
    """`RECEIVER_HTTP__PORT=80` as `{"http": {"port": "80"}}`.

    A value that starts with `[` or `{` is JSON if the setting is a list or a table (`takes_json`, by the setting's
    path); otherwise it is text, such as a password. An empty variable counts as absent, since Compose turns `${NAME:-}`
    into one.
    """
    tree: Tree = {}
    for name in sorted(environ):
        value = environ[name].strip()
        is_other = name in NOT_SETTINGS or SERVICE_LINK.fullmatch(f"{name}={value}")
        if not name.startswith(PREFIX) or not value or is_other:
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
            try:
                place[leaf] = json.loads(value) if value[0] in "[{" and takes_json(path) else value
            except (ValueError, RecursionError):
                problems.append(f"{name}: starts like JSON but is not valid. Fix the JSON, or write a list as a,b,c.")
    return tree


def merge(under: Tree, over: Tree) -> Tree:
    """The tree `under`, overridden by `over`: tables are merged, everything else is replaced."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def one_account(tree: Tree, problems: list[str]) -> Tree:
    """Merge `account` (from the environment) into the only table of `accounts`, or make it the only account."""
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
