"""`receiver simulate`: it serves, tells what a receiver needs, and keeps its keys from run to run."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import aiohttp
import pytest

from receiver.commands.simulate import run
from receiver.errors import ConfigurationError
from receiver.settings import load
from receiver.simulator.keyring import load_or_make
from receiver.simulator.keys import Keys, private_pem
from tests.kit.clock import T0
from tests.simulator.conftest import until

DAY = 86_400_000


async def said(folder: Path, **options: object) -> str:
    """The output of a run until it is ended. It answers requests while it runs."""
    ended, lines = asyncio.Event(), list[str]()
    options = {"port": 0, "keys": folder, "say": lines.append, "ended": ended, **options}
    running = asyncio.create_task(run(**options))  # type: ignore[arg-type]
    await until(lambda: lines or running.done())
    if lines:
        address = lines[0].splitlines()[0].rpartition(" ")[2]
        async with aiohttp.ClientSession() as session, session.get(f"{address}/simulator") as answer:
            assert answer.status == 200
    ended.set()
    await running
    return lines[0]


@pytest.mark.parametrize(("environment", "name"), [("sandbox", "eu-sandbox"), ("live", "eu")])
async def test_the_snippet_is_a_configuration_that_works(tmp_path: Path, environment: str, name: str) -> None:
    """The receiver accepts it unchanged as its settings."""
    text = await said(tmp_path / "keys", environment=environment, region="eu", public_key_id="")
    snippet = text[text.index("[[accounts]]") : text.index("\n\nStart a refund")]
    (tmp_path / "receiver.toml").write_text(snippet)
    (account,) = load(tmp_path / "receiver.toml", {}).build_accounts()
    assert (account.name, account.environment) == (name, environment)
    ((url, pem),) = account.signing_certificates.items()
    assert url in text
    assert account.fps is not None
    assert f"FPS          {account.fps.endpoint} (retired in 2015)" in text
    assert f"posts to http://127.0.0.1:8000/fps/{name}\n" in text
    assert pem == (tmp_path / "keys" / "sns-certificate.pem").read_bytes()
    assert account.allows(f"arn:aws:sns:eu-west-1:291180941288:{_market(environment)}A2SIMULATOR01")


def _market(environment: str) -> str:
    return {"sandbox": "A1G8446IYHA4MR", "live": "A3M3RRFO9XDT2G"}[environment]


async def test_keys_are_kept_from_run_to_run(tmp_path: Path) -> None:
    """So the receiver's configuration stays right; no other user can read them."""
    folder = tmp_path / "keys"
    first, second = await said(folder), await said(folder)
    pins = [line for text in (first, second) for line in text.splitlines() if line.startswith('"https://sns.')]
    assert len(pins) == 2
    assert pins[0] == pins[1]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert len(list(folder.iterdir())) == 3


def test_a_certificate_near_its_end_is_replaced_and_the_merchants_key_kept(tmp_path: Path) -> None:
    """The client's configuration then needs a new pin, but no new key."""
    first = load_or_make(tmp_path, T0)
    later = load_or_make(tmp_path, T0 + 334 * DAY + DAY // 2)
    assert later.signing.file_name != first.signing.file_name
    assert private_pem(later.merchant) == private_pem(first.merchant)
    assert load_or_make(tmp_path, T0 + 335 * DAY).signing.file_name == later.signing.file_name


@pytest.mark.parametrize("name", ["sns-private-key.pem", "sns-certificate.pem", "merchant-private-key.pem"])
@pytest.mark.parametrize("fault", ["missing", "garbage", "another"])
def test_keys_that_do_not_belong_together_are_refused(tmp_path: Path, keys: Keys, name: str, fault: str) -> None:
    """They are never overwritten: they may be needed. A merchant's own key is as good as any."""
    load_or_make(tmp_path, T0)
    if fault == "missing":
        (tmp_path / name).unlink()
    else:
        content = {"sns-certificate.pem": keys.signing.pem.encode()}.get(name, keys.merchant_private_key_pem)
        (tmp_path / name).write_bytes(b"garbage" if fault == "garbage" else content)
    if fault == "another" and name == "merchant-private-key.pem":
        assert load_or_make(tmp_path, T0).merchant_private_key_pem == keys.merchant_private_key_pem
        return
    with pytest.raises(ConfigurationError, match="Remove the folder"):
        load_or_make(tmp_path, T0)


async def test_what_cannot_work_is_a_configuration_error(tmp_path: Path) -> None:
    """A taken port, and settings that contradict each other."""
    with pytest.raises(ConfigurationError, match="region"):
        await said(tmp_path, region="cn")
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        with pytest.raises(ConfigurationError, match="cannot listen"):
            await said(tmp_path, port=server.sockets[0].getsockname()[1])
