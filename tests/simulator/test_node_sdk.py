"""Amazon's own Node SDK against the simulator, which accepts what an official client signs.

Skipped if Node or the SDK is missing; nothing is downloaded here. This installs it in the project's root (git
ignores it there):

    npm install --no-save --ignore-scripts @amazonpay/amazon-pay-api-sdk-nodejs

If it is installed elsewhere, set `AMAZON_PAY_NODE_SDK=/path/to/node_modules`.

The SDK only uses https and Amazon's hosts, and signs the host's name. Its `overrideServiceUrl` would change what is
signed, and disables the check of certificates. So here its connections end at a TLS server on loopback, whose
certificate for Amazon's names Node trusts by `NODE_EXTRA_CA_CERTS`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from receiver.simulator.app import Simulator
from receiver.simulator.keys import Keys

PACKAGE = "@amazonpay/amazon-pay-api-sdk-nodejs"
SCRIPT = Path(__file__).with_name("node_sdk.cjs")
ROOT = Path(__file__).resolve().parents[2]
HOSTS = {"na": "pay-api.amazon.com", "eu": "pay-api.amazon.eu", "jp": "pay-api.amazon.jp"}
V1, V2 = "AMZN-PAY-RSASSA-PSS", "AMZN-PAY-RSASSA-PSS-V2"
CHARGE = "S01-0000001-0000001-C000001"


def node_modules() -> Path:
    """The folder that holds the SDK; skips the test, saying what is missing, where there is none."""
    if shutil.which("node") is None:
        pytest.skip("install Node")
    named = os.environ.get("AMAZON_PAY_NODE_SDK")
    folder = Path(named) if named else ROOT / "node_modules"
    if not (folder / PACKAGE / "package.json").is_file():
        pytest.skip(f"install the npm package {PACKAGE} in {folder}, or set AMAZON_PAY_NODE_SDK: see the docstring")
    return folder


@asynccontextmanager
async def behind_tls(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A port on loopback that takes TLS off and passes everything on."""
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):
            above, below = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pump(reader, below), pump(above, writer))

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def by_the_sdk(
    amazon: Simulator, folder: Path, algorithm: str | None, calls: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What the SDK makes of these calls to the simulator, one after the other."""
    authority = trustme.CA()
    trusted = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOSTS[amazon.region]).configure_cert(context)
    config = {
        "publicKeyId": amazon.public_key_id,
        "privateKey": amazon.merchant_private_key_pem.decode(),
        "region": amazon.region,
        "sandbox": amazon.environment == "sandbox",
        **({"algorithm": algorithm} if algorithm else {}),
    }
    environment = {"PATH": os.environ["PATH"], "NODE_PATH": str(node_modules()), "NODE_EXTRA_CA_CERTS": str(trusted)}
    async with behind_tls(int(amazon.base_url.rpartition(":")[2]), context) as port:
        pipe = asyncio.subprocess.PIPE
        node = await asyncio.create_subprocess_exec(
            "node", str(SCRIPT), stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )
        try:
            async with asyncio.timeout(60):
                job = json.dumps({"port": port, "config": config, "calls": calls})
                said, trouble = await node.communicate(job.encode())
        finally:
            if node.returncode is None:
                node.kill()
                await node.wait()
    assert node.returncode == 0, trouble.decode()
    answers: list[dict[str, Any]] = json.loads(said)
    return answers


def call(method: str, *arguments: object, tamper: str = "") -> dict[str, Any]:
    """One call of the SDK's client, as the script takes it."""
    return {"method": method, "arguments": arguments, "tamper": tamper}


KINDS = [
    ("na", "sandbox", "", None),
    ("eu", "sandbox", "AEXAMPLEOLDKEY", V2),
    ("jp", "live", "", V2),
    ("na", "live", "AEXAMPLEOLDKEY", V1),
    ("eu", "live", "", V1),
    ("jp", "sandbox", "AEXAMPLEOLDKEY", None),
]
"""Region, environment, key id (empty: one that begins with the environment), algorithm (None: the SDK's own choice)."""


@pytest.mark.parametrize(("region", "environment", "key_id", "algorithm"), KINDS)
async def test_the_official_sdk_gets_its_answers(
    keys: Keys, tmp_path: Path, region: str, environment: str, key_id: str, algorithm: str | None
) -> None:
    """Get Charge, Create Refund and its repetition, Get Refund: each with the status and the values of Amazon."""
    node_modules()
    async with Simulator(
        keys=keys, region=region, environment=environment, public_key_id=key_id, throttle={}
    ) as amazon:
        currency, amount = {"na": ("USD", "1.00"), "eu": ("EUR", "1.00"), "jp": ("JPY", "100")}[region]
        charge = amazon.open_charge("500" if region == "jp" else "5.00", currency)
        order = {"chargeId": charge, "refundAmount": {"amount": amount, "currencyCode": currency}}
        create = call("createRefund", order, {"x-amz-pay-idempotency-key": "order-4711"})
        found = await by_the_sdk(amazon, tmp_path, algorithm, [call("getCharge", charge), create, create])
        (refund_id,) = amazon.refunds
        found += await by_the_sdk(amazon, tmp_path, algorithm, [call("getRefund", refund_id)])

    assert [each["status"] for each in found] == [200, 201, 201, 200]
    assert found[0]["data"]["chargeId"] == charge
    for each in found[1:]:
        assert each["data"]["refundId"] == refund_id
        assert each["data"]["refundAmount"] == order["refundAmount"]
        assert each["data"]["releaseEnvironment"].lower() == environment
    base = f"https://{HOSTS[region]}/{environment}/v2/" if key_id else f"https://{HOSTS[region]}/v2/"
    for each in found:
        assert each["url"].startswith(base)
        assert each["authorization"].startswith(f"{algorithm or V1} PublicKeyId={amazon.public_key_id}, ")
        assert ";user-agent;" in each["authorization"]


@pytest.mark.parametrize("algorithm", [V1, V2])
async def test_what_was_changed_after_the_sdk_signed_it_is_refused(keys: Keys, tmp_path: Path, algorithm: str) -> None:
    """Body, path, date, and a header that only this SDK signs; nothing is refunded, and what is unchanged passes."""
    node_modules()
    order = {"chargeId": CHARGE, "refundAmount": {"amount": "1.00", "currencyCode": "USD"}}
    create = ("createRefund", order, {"x-amz-pay-idempotency-key": "order-4711"})
    calls = [
        call(*create, tamper="body"),
        call(*create, tamper="header"),
        call("getCharge", CHARGE, tamper="path"),
        call("getCharge", CHARGE, tamper="date"),
        call("getCharge", CHARGE),
    ]
    async with Simulator(keys=keys, throttle={}) as amazon:
        assert CHARGE in amazon.charges
        *changed, untouched = await by_the_sdk(amazon, tmp_path, algorithm, calls)
        assert not amazon.refunds
    assert [(each["status"], each["data"]["reasonCode"], each["reason"]) for each in changed] == [
        (401, "InvalidRequestSignature", "signature"),
        (401, "InvalidRequestSignature", "signature"),
        (401, "InvalidRequestSignature", "signature"),
        (401, "InvalidRequestSignature", "date_skew"),
    ]
    assert untouched["status"] == 200
