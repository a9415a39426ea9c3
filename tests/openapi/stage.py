"""The whole service as schemathesis meets it: a real Valkey, Amazon's stand-in, workers, a subscriber, one token."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from receiver.settings.sections import Scope
from receiver.simulator.fps.checks import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from tests.http.kit import token
from tests.kit.processes import PROJECT
from tests.service.stage import Amazon, Hook, Stage, account, running

TOKEN = "token-of-everything"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
SEED = 1
HERE = Path(__file__).parent


@dataclass
class House:
    """A running service with something in it: captured charges, a declined refund, subscribers."""

    stage: Stage
    amazon: Amazon
    charge: str
    refund: str


@asynccontextmanager
async def house(valkey_url: str, folder: Path) -> AsyncIterator[House]:
    """Everything; wrong tokens and refreshes are not limited, since every client is this machine."""
    hook = Hook(name="books")
    async with Amazon() as amazon, hook.listening():
        fast = {"get_refund": [1000, 1000], "get_charge": [1000, 1000], "create_refund": [1000, 1000]}
        keys = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}
        fps = {**keys, "endpoint": amazon.fps_endpoint}
        table = {**account(amazon, folder), "throttle": fast, "fps": fps}
        tokens = [token(TOKEN, "read", "refund", "admin"), *(token(f"only-{scope}", scope) for scope in Scope)]
        http = {"port": 0, "failed_sign_ins": 0, "refreshes": 0}
        async with running(valkey_url, [table], [hook], tokens=tokens, http=http) as stage:
            refund = await declined(stage, amazon)
            await post(stage, "/v1/subscribers", {"name": "finance", "url": hook.url, "types": ["*"]})
            yield House(stage, amazon, amazon.open_charge("9000.00", "USD"), refund)


async def declined(stage: Stage, amazon: Amazon) -> str:
    """A refund that Amazon has declined."""
    amount = {"amount": "14.01", "currencyCode": "USD"}
    refund = await post(stage, "/v1/refunds", {"chargeId": amazon.open_charge("100.00", "USD"), "refundAmount": amount})
    one = f"/v1/refunds/{refund['refundId']}"
    amazon.move()
    await post(stage, f"{one}/refresh", {})
    async with stage.session.get(f"{stage.url}{one}?wait=20", headers=HEADERS) as answer:
        assert (await answer.json())["statusDetails"]["state"] == "Declined"
    return str(refund["refundId"])


async def post(stage: Stage, path: str, body: Any) -> dict[str, Any]:
    """What the service answers."""
    headers = {**HEADERS, "Idempotency-Key": "the-first"}
    async with stage.session.post(f"{stage.url}{path}", json=body, headers=headers) as answer:
        found: dict[str, Any] = await answer.json()
        assert answer.status < 300, found
        return found


async def schemathesis(place: House, folder: Path, examples: int, *more: str, seed: int = SEED) -> tuple[int, str]:
    """Exit code and output of a run over the whole API."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{place.stage.url}/openapi.json", "--max-examples", str(examples), "--seed", str(seed)),
        *("--header", f"Authorization: Bearer {TOKEN}", "--no-color", *more),
        *("--exclude-checks", "positive_data_acceptance"),
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            # Where it keeps what it has worked out about Unicode, which takes seconds.
            "HYPOTHESIS_STORAGE_DIRECTORY": str(PROJECT / ".hypothesis"),
            "REFUND": place.refund,
            "CHARGE": place.charge,
        },
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode()
