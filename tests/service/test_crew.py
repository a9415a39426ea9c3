"""`receiver serve --workers N`: several processes that look like one."""

from __future__ import annotations

import os
import re
import signal
from hashlib import sha256

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.fleet import fleet
from tests.kit.processes import Command, Desk, until
from tests.service.crash_kit import TOKEN, Load, World
from tests.service.test_crash import ready
from tests.service.test_failover import on_redis
from tests.store.embedded_kit import lives, servers


async def fetch(url: str, **more: object) -> str:
    """A page over a new connection, which any of the processes may get."""
    async with aiohttp.ClientSession() as session, session.get(url, **more) as answer:  # type: ignore[arg-type]
        assert answer.status == 200
        return await answer.text()


async def believed(around: World) -> float:
    """The number of accepted notifications in `/metrics`."""
    families = text_string_to_metric_families(await fetch(f"{around.url}/metrics"))
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "receiver_notifications_total" and sample.labels["outcome"] == "noted"
    )


async def reloads(around: World, count: int) -> bool:
    """Whether `/metrics` says that the settings were read again so often."""
    return f'receiver_settings_reloads_total{{outcome="ok"}} {count}.0' in await fetch(f"{around.url}/metrics")


async def signed_in(around: World, browser: aiohttp.ClientSession) -> bool:
    """Whether the dashboard shows itself, over a new connection."""
    async with browser.get(f"{around.url}/", allow_redirects=False, headers={"Connection": "close"}) as answer:
        return answer.status == 200


async def members(command: Command) -> list[int]:
    """The processes that answered first."""
    found: list[int] = (await command.line("serve.ready"))["processes"]
    return found


async def test_several_processes_look_like_one(place: Desk, around: World) -> None:
    """Notifications, deliveries, metrics and sessions of the dashboard; one of them is killed, and another takes its
    place; in the end nothing is left. The embedded Valkey is the keeper's."""
    config = around.configure(place.folder)
    command = await around.at(await place.serve(config, "--workers", "2"))
    pids = await members(command)
    assert len(pids) == 2
    assert len(servers(place.folder)) == 1
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(f"{around.url}/sign-in", headers={"Connection": "close"}) as answer:
            form = re.search(r'name="csrf" value="([^"]+)"', await answer.text())
        assert form
        fields = {"csrf": form[1], "token": TOKEN}
        async with browser.post(f"{around.url}/sign-in", data=fields, headers={"Origin": around.url}) as answer:
            assert answer.status == 200
        async with Load(around, 20).running():
            pass
        await until(around.settled, "everything is known")
        assert around.repeats() == 0
        assert [await believed(around) for _ in range(6)] == [20.0] * 6

        os.kill(pids[0], signal.SIGKILL)
        died = await command.line("serve.process_died")
        assert (died["process"], died["exit_status"]) == (pids[0], -signal.SIGKILL)
        async with Load(around, 10).running():
            pass
        await until(around.settled, "the other goes on")
        assert [await believed(around) for _ in range(6)] == [30.0] * 6
        assert all([await signed_in(around, browser) for _ in range(6)])

        # All of them read the settings again. Sessions of a token that is gone end, in all of them.
        digest = sha256(b"another").hexdigest()
        config.write_text(config.read_text().replace(sha256(TOKEN.encode()).hexdigest(), digest))
        command.process.send_signal(signal.SIGHUP)
        await until(lambda: reloads(around, 2), "both have read the settings")
        assert len(command.logged("settings.reloaded")) == 1
        assert not any([await signed_in(around, browser) for _ in range(6)])
        for token, status in ((TOKEN, 401), ("another", 200)):
            headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
            for _ in range(4):
                async with browser.get(f"{around.url}/v1/refunds", headers=headers) as answer:
                    assert answer.status == status
    # As systemd does: all at once. No process may die before it has ended in order.
    os.killpg(command.process.pid, signal.SIGTERM)
    assert await command.ended(15) == 0
    assert len(command.logged("serve.stopping")) == 1
    assert servers(place.folder) == []
    assert not any(lives(pid) for pid in pids)


async def test_when_the_keeper_is_killed_the_others_leave(place: Desk, around: World) -> None:
    """No process keeps the port, and the folder that they shared is removed."""
    environment = {"TMPDIR": str(place.folder)}
    command = await around.at(await place.serve(around.configure(place.folder), "--workers", "2", env=environment))
    pids = await members(command)
    await until(lambda: ready(around), "ready")
    assert list(place.folder.glob("receiver-*/sessions"))
    await command.kill()
    await until(lambda: not any(lives(pid) for pid in pids), "the others are gone")
    assert not list(place.folder.glob("receiver-*/sessions"))


async def test_settings_with_which_no_process_can_work(place: Desk, around: World) -> None:
    """Exit code 2, not a process that is started for ever."""
    async with fleet() as found:
        redis = await found.start()
        await redis.client.set("refunds:format", 99)
        config = on_redis(around.configure(place.folder), redis.url)
        command = await place.run("serve", "--config", config, "--workers", "2")
    assert command.process.returncode == 2
    assert "its data has format 99" in command.complaint
