"""The proxies' examples, run: what Amazon signed still verifies behind them, and nothing but /ipn is reached."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web

from receiver.simulator.outcomes import Outcome
from receiver.transport.client import Transport
from tests.deploy.tools import DEPLOY, run, tool
from tests.kit.processes import short_folder, until
from tests.service.stage import Amazon, account, running

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("127.0.0.1", "localhost")
Start = Callable[[Path, str, int], Awaitable[asyncio.subprocess.Process]]


def context() -> ssl.SSLContext:
    """Trusts the authority of these tests."""
    found = ssl.create_default_context()
    AUTHORITY.configure_trust(found)
    return found


def free_port() -> int:
    """A currently free port."""
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


def certificate(folder: Path) -> tuple[Path, Path]:
    """Chain and key, as files."""
    chain, key = folder / "fullchain.pem", folder / "privkey.pem"
    chain.write_bytes(b"".join(each.bytes() for each in CERTIFICATE.cert_chain_pems))
    key.write_bytes(CERTIFICATE.private_key_pem.bytes())
    return chain, key


async def started(folder: Path, *command: str | Path, **environ: str) -> asyncio.subprocess.Process:
    """The proxy, with its log in the folder."""
    with (folder / "log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={**os.environ, **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


API = re.compile(r"^    # (location ~ .*\{\n(?:    # .*\n)*?    # \}\n)", re.MULTILINE)
"""The block of the API in nginx.conf, which is a comment."""


def with_api(text: str) -> str:
    """nginx.conf with the block of the API."""
    found, count = API.subn(lambda block: "    " + block[1].replace("\n    # ", "\n    "), text)
    assert count == 1
    return found


def blocks(text: str) -> Iterator[list[str]]:
    """The directives of each block of nginx's configuration, with those of the files that it includes."""
    text = re.sub(r"#.*", "", text)
    for _ in range(3):
        text = re.sub(r"include /etc/nginx/(\S+);", lambda file: (DEPLOY / file[1]).read_text(), text)
        text = re.sub(r"#.*", "", text)
    assert "include " not in text
    stack: list[list[str]] = [[]]
    for words, end in re.findall(r"([^;{}]*)([;{}])", text):
        if end == "}":
            yield stack.pop()
            continue
        stack[-1].append(words.split()[0])
        if end == "{":
            stack.append([])
    assert len(stack) == 1
    yield stack[0]


REPEATABLE = {"listen", "location", "server", "upstream", "proxy_set_header", "allow", "deny"}


@pytest.mark.parametrize("api", [False, True], ids=["as-it-stands", "with-api"])
def test_no_directive_of_nginx_stands_twice_in_a_block(api: bool) -> None:
    """nginx would not start. The block of the API is meant to be used."""
    text = (DEPLOY / "nginx.conf").read_text()
    found = list(blocks(with_api(text) if api else text))
    assert len(found) == (7 if api else 6)
    for block in found:
        once = [name for name in block if name not in REPEATABLE]
        assert sorted(once) == sorted(set(once))
    assert ("proxy_read_timeout" in found[3]) is api, "the API answers late, and has a block with its own patience"
    assert all("proxy_pass" in block for block in found[1 : 4 if api else 3])


def test_a_directive_that_stands_twice_is_found() -> None:
    """Also where one of the two is in an included file."""
    twice = "location / { proxy_pass http://x; include /etc/nginx/receiver-proxy.conf; }"
    assert next(blocks(twice)).count("proxy_pass") == 2


async def nginx(folder: Path, upstream: str, port: int) -> asyncio.subprocess.Process:
    """nginx with the example: other address, certificate and folders; everything else as it stands."""
    return await nginx_with(folder, upstream, port, (DEPLOY / "nginx.conf").read_text())


async def nginx_with_api(folder: Path, upstream: str, port: int) -> asyncio.subprocess.Process:
    """The same with the block of the API, for the network of these tests."""
    text = with_api((DEPLOY / "nginx.conf").read_text())
    assert "allow 10.0.0.0/8;" in text
    return await nginx_with(folder, upstream, port, text.replace("10.0.0.0/8", "127.0.0.0/8"))


async def nginx_with(folder: Path, upstream: str, port: int, text: str) -> asyncio.subprocess.Process:
    """nginx with this text."""
    program = tool("nginx")
    chain, key = certificate(folder)
    for before, after in (
        ("server 127.0.0.1:8000;", f"server {upstream};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("    listen [::]:443 ssl;\n", ""),
        ("/etc/nginx/tls/fullchain.pem", str(chain)),
        ("/etc/nginx/tls/privkey.pem", str(key)),
        ("/etc/nginx/receiver-proxy.conf", str(DEPLOY / "receiver-proxy.conf")),
    ):
        assert before in text
        text = text.replace(before, after)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user = "user root;\n" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}{text}}}\n"
    )
    run(program, "-t", "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr")
    return await started(folder, program, "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr")


async def caddy(folder: Path, upstream: str, port: int) -> asyncio.subprocess.Process:
    """Caddy with the example: other address, and a certificate of these tests instead of one from the web."""
    program = tool("caddy")
    chain, key = certificate(folder)
    text = (DEPLOY / "Caddyfile").read_text()
    text = text.replace("\tadmin off\n", f"\tadmin off\n\thttps_port {port}\n\tauto_https disable_redirects\n")
    text = text.replace("} {\n\t@notification", f"}} {{\n\tbind 127.0.0.1\n\ttls {chain} {key}\n\t@notification")
    assert text.count(str(chain)) == 1
    (folder / "Caddyfile").write_text(text)
    return await started(
        folder,
        program,
        "run",
        "--config",
        folder / "Caddyfile",
        HOME=str(folder),
        XDG_DATA_HOME=str(folder),
        RECEIVER_HOST="127.0.0.1",
        RECEIVER_UPSTREAM=upstream,
    )


@asynccontextmanager
async def with_routes(start: Start, upstream: str) -> AsyncIterator[str]:
    """The address of the proxy in front of `upstream`, when it listens."""
    folder, port = short_folder(), free_port()
    process: asyncio.subprocess.Process | None = None
    try:
        process = await start(folder, upstream.removeprefix("http://"), port)

        def listens(process: asyncio.subprocess.Process = process) -> bool:
            assert process.returncode is None, (folder / "log").read_text()
            with socket.socket() as line:
                return line.connect_ex(("127.0.0.1", port)) == 0

        await until(listens, "the proxy listens")
        yield f"https://127.0.0.1:{port}"
    finally:
        if process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 30)
        shutil.rmtree(folder)


@asynccontextmanager
async def posting() -> AsyncIterator[Transport]:
    """What posts notifications over TLS."""
    sender = Transport(tls=context())
    try:
        yield sender
    finally:
        await sender.close()


@pytest.mark.parametrize("start", [nginx, caddy], ids=["nginx", "caddy"])
async def test_the_proxy_passes_notifications_on_as_they_are_and_nothing_else(
    start: Start, valkey_url: str, redis: object, tmp_path: Path
) -> None:
    """Signed notifications are believed; the largest body passes and a larger one is refused; the API is not there."""
    async with posting() as sender, Amazon(transport=sender) as amazon:
        http = {"port": 0, "trusted_proxies": ["127.0.0.1"]}
        async with (
            running(valkey_url, [account(amazon, tmp_path)], http=http) as stage,
            with_routes(start, stage.url) as url,
        ):
            amazon.post_to = f"{url}/ipn/us"
            refund_id = amazon.start_refund("12.00", "USD", Outcome.AMAZON_REJECTED)
            amazon.move()

            async def believed() -> bool:
                return stage.counted("notifications", outcome="noted", reason="") >= 1

            await until(believed, "the notification is believed")

            async def declined() -> bool:
                found = await stage.state(refund_id)
                return found is not None and found[0] == "Declined"

            await until(declined, "the refund is declined")
            tls = context()
            for path, status in {
                "/v1/refunds": 404,
                "/metrics": 404,
                "/healthz": 404,
                "/readyz": 404,
                "/": 404,
                "/ipnx": 404,
                "/ipn/../metrics": 404,
                "/ipn/%2e%2e/metrics": 404,
                "/ipn/us/..%2f..%2fmetrics": 404,
                "//metrics": 404,
            }.items():
                assert await asyncio.to_thread(raw, url, "GET", path, tls) == status, path
            assert await asyncio.to_thread(raw, url, "POST", "/v1/refunds", tls, b"{}") == 404
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
                for size, status in ((3, 400), (256 * 1024, 400), (256 * 1024 + 1, 413), (400 * 1024, 413)):
                    async with session.post(f"{url}/ipn", data=b"x" * size) as answer:
                        assert answer.status == status, size
                for path in ("/ipn", "/ipn/", "/ipn/us", "/ipn/us/"):
                    async with session.post(url + path, data=b"{}") as answer:
                        assert answer.status == 400, path


@pytest.mark.parametrize("start", [nginx, caddy], ids=["nginx", "caddy"])
async def test_body_and_path_arrive_byte_for_byte_and_the_client_cannot_lie_about_itself(start: Start) -> None:
    """Any byte, also in a request that is chunked; X-Forwarded-For is the address that the proxy saw."""
    seen: list[tuple[str, bytes, list[str], str]] = []

    async def note(request: web.BaseRequest) -> web.Response:
        headers = request.headers
        seen.append(
            (
                request.path_qs,
                await request.read(),
                headers.getall("X-Forwarded-For"),
                headers["X-Amz-Sns-Message-Type"],
            )
        )
        return web.Response()

    runner = web.ServerRunner(web.Server(note))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port, *_ = runner.addresses[0]
    body = bytes(range(256)) * 1000
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Amz-Sns-Message-Type": "Notification", "Content-Type": "text/plain"}

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 10_000):
            yield body[at : at + 10_000]

    connector = aiohttp.TCPConnector(ssl=context())
    try:
        async with with_routes(start, f"{host}:{port}") as url, aiohttp.ClientSession(connector=connector) as session:
            for data in (body, pieces()):
                async with session.post(f"{url}/ipn/us", data=data, headers=headers) as answer:
                    assert answer.status == 200
    finally:
        await runner.cleanup()
    assert seen == [("/ipn/us", body, ["127.0.0.1"], "Notification")] * 2


async def test_nginx_with_the_block_of_the_api_loads_and_passes_it_on(valkey_url: str, tmp_path: Path) -> None:
    """A token is asked for, so the service answered; metrics and health stay inside."""
    async with (
        Amazon() as amazon,
        running(valkey_url, [account(amazon, tmp_path)], http={"port": 0}) as stage,
        with_routes(nginx_with_api, stage.url) as url,
    ):
        tls = context()
        for path, status in {
            "/v1/refunds": 401,
            "/sign-in": 200,
            "/ipn/us": 405,
            "/metrics": 404,
            "/readyz": 404,
            "/v1x": 404,
        }.items():
            assert await asyncio.to_thread(raw, url, "GET", path, tls) == status, path


def raw(url: str, method: str, path: str, tls: ssl.SSLContext, body: bytes = b"") -> int:
    """The status of a request whose path is sent unchanged."""
    host, _, port = url.removeprefix("https://").partition(":")
    with socket.create_connection((host, int(port)), 10) as plain, tls.wrap_socket(plain, server_hostname=host) as line:
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n"
        line.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
        answer = b""
        while b"\r\n" not in answer and (more := line.recv(4096)):
            answer += more
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert match, answer
    return int(match[1])
