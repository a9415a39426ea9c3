"""Command. `python -m receiver.commands.healthcheck [PATH]`: whether the service on this machine is healthy.

For containers. It calls `/healthz`, or the path, on the port in the settings. Container engines run it every few
seconds, so it imports nothing else. Exit code 0, or 1 with the reason on standard error.
"""

from __future__ import annotations

import http.client
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

HOST, PORT, PATH = "127.0.0.1", 8000, "/healthz"
EVERY: Final = {
    "0.0.0.0": HOST,  # noqa: S104 - it is read, not bound
    "::": "::1",
    "": HOST,
}
"""Addresses to listen on that mean every address of the machine → an address to connect to."""
TIMEOUT = 3.0


def address(environ: Mapping[str, str]) -> tuple[str, int]:
    """Host and port of `http.host` and `http.port`, of the environment first, then of the file."""
    said: dict[str, Any] = {}
    if path := environ.get("RECEIVER_CONFIG", "").strip():
        said = tomllib.loads(Path(path).read_text("utf-8-sig")).get("http", {})
    host = environ.get("RECEIVER_HTTP__HOST", "").strip() or said.get("host", HOST)
    port = environ.get("RECEIVER_HTTP__PORT", "").strip() or said.get("port", PORT)
    return EVERY.get(host, host), int(port)


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """What is wrong, or None."""
    path = arguments[0] if arguments else PATH
    try:
        host, port = address(environ)
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        try:
            connection.request("GET", path)
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        return f"no answer to {path}: {type(error).__name__}: {error}"
    return None if status == 200 else f"{path} on port {port} answers {status}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
