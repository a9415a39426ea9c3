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

from receiver.simulator.fps_checks import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from tests.http.kit import token
from tests.processes import PROJECT
from tests.river.stage import Amazon, Hook, Stage, account, running

TOKEN = "token-of-everything"
SEED = 1
HERE = Path(__file__).parent


@dataclass
class House:
    """A running service with something in it: a captured charge, a refund, a subscriber."""

    stage: Stage
    amazon: Amazon
    charge: str
    refund: str


@asynccontextmanager
async def house(valkey_url: str, folder: Path) -> AsyncIterator[House]:
    """Everything; wrong tokens are not limited, since every client is this machine."""
    hook = Hook(name="finance")
    async with Amazon() as amazon, hook.listening():
        fast = {"get_refund": [1000, 1000], "get_charge": [1000, 1000], "create_refund": [1000, 1000]}
        keys = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}
        fps = {**keys, "endpoint": amazon.fps_endpoint}
        table = {**account(amazon, folder), "throttle": fast, "fps": fps}
        tokens = [token(TOKEN, "read", "refund", "admin")]
        http = {"port": 0, "failed_sign_ins": 0}
        async with running(valkey_url, [table], [hook], tokens=tokens, http=http) as stage:
            charge = amazon.open_charge("100.00", "USD")
            yield House(stage, amazon, charge, await issued(stage, charge))


async def issued(stage: Stage, charge: str) -> str:
    """A refund of the charge."""
    body = {"chargeId": charge, "refundAmount": {"amount": "1.00", "currencyCode": "USD"}}
    headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": "the-first"}
    async with stage.session.post(f"{stage.url}/v1/refunds", json=body, headers=headers) as answer:
        found: dict[str, Any] = await answer.json()
        assert answer.status == 201, found
        return str(found["refundId"])


async def schemathesis(place: House, folder: Path, examples: int, *more: str, seed: int = SEED) -> tuple[int, str]:
    """Exit code and output of a run over the whole API."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{place.stage.url}/openapi.json", "--max-examples", str(examples), "--seed", str(seed)),
        *("--header", f"Authorization: Bearer {TOKEN}", "--no-color", *more),
        *("--exclude-checks", "positive_data_acceptance"),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "REFUND": place.refund, "CHARGE": place.charge},
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
