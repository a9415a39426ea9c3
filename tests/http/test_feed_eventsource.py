"""The feed as the npm package `eventsource` reads it: a client that is not ours, over a restart of the service.

It runs where `node` and the package are found: in the folder that RECEIVER_TEST_NODE_MODULES names, or in the project's
`node_modules`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.commands.kit import REPOSITORY, Server, _Lines
from tests.http.feed_kit import refund_id
from tests.http.kit import READER
from tests.kit.outside import outside

MODULES = Path(outside("NODE_MODULES") or REPOSITORY / "node_modules")
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    NODE is None or not (MODULES / "eventsource").is_dir(),
    reason=f"install Node, and the npm package eventsource in {MODULES} (or RECEIVER_TEST_NODE_MODULES)",
)

SCRIPT = """
import { createRequire } from 'node:module';
const [modules, url, token] = process.argv.slice(2);
const found = createRequire(modules + '/x.js')('eventsource');
const EventSource = found.EventSource ?? found;
const headers = { Authorization: `Bearer ${token}` };
const source = new EventSource(url, {
  headers,
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }),
});
const say = (kind) => (event) =>
  console.log(JSON.stringify({ kind, id: event.lastEventId, data: event.data ? JSON.parse(event.data) : null }));
for (const kind of ['cursor', 'reset', 'bye', 'amazonpay.refund.declined']) source.addEventListener(kind, say(kind));
source.addEventListener('open', () => console.log(JSON.stringify({ kind: 'open' })));
source.addEventListener('error', () => console.log(JSON.stringify({ kind: 'error' })));
"""


def test_eventsource_resumes_without_our_help(valkey_url: str, tmp_path: Path) -> None:
    """Every event once over two restarts, also those that happen before it is back; then word of a loss."""
    script = tmp_path / "listen.mjs"
    script.write_text(SCRIPT)
    server = Server(valkey_url)
    server.empty()
    process = subprocess.Popen(
        [str(NODE), str(script), str(MODULES), f"{server.url}/v1/events?account=us", READER],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = _Lines(process.stdout), _Lines(process.stderr)
    try:
        seen: list[str] = []

        def follow(number: int) -> None:
            """Until this event; the order and the count are judged at the end."""
            while not seen or seen[-1] != refund_id(number):
                told = json.loads(out.until("amazonpay.refund.declined"))
                seen.append(told["data"]["subject"])

        out.until("cursor")
        for number in range(6):
            server.seen(refund_id(number), "Declined", reason="AmazonRejected")
            if number in (1, 3):
                follow(number)
                server.stop()
                out.until("bye")
                server.start()
        follow(5)
        assert seen == [refund_id(number) for number in range(6)]
        server.empty()
        assert json.loads(out.until("reset"))["data"]["accounts"] == {"us": "emptied"}
    finally:
        process.kill()
        process.wait()
        out.close()
        err.close()
        server.close()
