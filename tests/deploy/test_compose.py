"""Compose: every service is locked in, every file is there, and the Valkey that it describes is a durable one."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from receiver.settings import load
from receiver.store.embedded.program import find_program
from receiver.store.redis.address import read_address
from tests.deploy.tools import DEPLOY, PROJECT
from tests.kit.accounts import merchant_key_pem
from tests.kit.valkey import BOUND, stop_valkey
from tests.store.makers import SECRET

TEXT = (DEPLOY / "compose.yaml").read_text()
DEFAULT = re.compile(r"\$\{\w+:-([^${}]*)\}")
SET = DEFAULT.sub(r"\1", DEFAULT.sub(r"\1", TEXT))
"""With the default of every variable; some have another's default in theirs."""
COMPOSE: dict[str, Any] = yaml.safe_load(SET)
SERVICES: dict[str, Any] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_locked_in(name: str) -> None:
    """No writable root, no rights, no port for strangers but the proxy's."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert "privileged" not in service
    assert not service["image"].endswith(":latest")
    assert re.search(r":[v0-9]", service["image"])
    if name != "caddy":
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


def test_the_services_health_is_asked_by_a_module_that_exists() -> None:
    """Compose cannot tell a wrong name from an unhealthy service."""
    asked = SERVICES["receiver"]["healthcheck"]["test"]
    assert asked[:3] == ["CMD", "python", "-m"]
    assert find_spec(asked[3]) is not None


def test_every_file_that_ships_is_there_and_secrets_are_only_files() -> None:
    """All that operators add is receiver.toml and the folder with secrets."""
    for config in COMPOSE["configs"].values():
        assert (DEPLOY / config["file"]).is_file(), config
    for name, secret in COMPOSE["secrets"].items():
        assert secret["file"].startswith("./secrets/"), name
    for service in SERVICES.values():
        assert not re.search(
            r"(?i)(password|secret|key)\"?: (?!/)", str(service.get("environment", {})).replace("'", "")
        )
        for kind in ("configs", "secrets"):
            named = {each if isinstance(each, str) else each["source"] for each in service.get(kind, [])}
            assert named <= set(COMPOSE[kind])
        assert set(service.get("networks", [])) <= set(COMPOSE["networks"])
        assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_the_store_is_reached_by_the_service_alone() -> None:
    """On a network that has no way out."""
    assert COMPOSE["networks"]["store"] == {"internal": True}
    assert [name for name, service in SERVICES.items() if "store" in service.get("networks", [])] == [
        "receiver",
        "valkey",
    ]
    assert "ports" not in SERVICES["valkey"]


def test_the_only_trusted_proxy_is_the_proxy() -> None:
    """By its one address, which no other container can get; not by Docker's gateway, which can be any client."""
    trusted = SERVICES["receiver"]["environment"]["RECEIVER_HTTP__TRUSTED_PROXIES"]
    fixed = {
        name: service["networks"]["front"]["ipv4_address"]
        for name, service in SERVICES.items()
        if isinstance(service.get("networks"), dict)
    }
    assert fixed == {"caddy": trusted}
    (front,) = COMPOSE["networks"]["front"]["ipam"]["config"]
    address, subnet = IPv4Address(trusted), IPv4Network(front["subnet"])
    assert subnet.is_private
    assert subnet.prefixlen == 24
    assert address in subnet
    assert trusted != front["gateway"]
    assert IPv4Address(front["gateway"]) in subnet
    given_out = IPv4Network(front["ip_range"])
    assert given_out.subnet_of(subnet)
    assert address not in given_out


def test_another_network_moves_all_of_its_addresses() -> None:
    """RECEIVER_NETWORK is for machines where this one is taken."""
    moved: dict[str, Any] = yaml.safe_load(DEFAULT.sub(r"\1", re.sub(r"\$\{RECEIVER_NETWORK:-[^}]*\}", "10.9.8", TEXT)))
    assert moved["services"]["receiver"]["environment"]["RECEIVER_HTTP__TRUSTED_PROXIES"] == "10.9.8.10"
    assert moved["services"]["caddy"]["networks"] == {"front": {"ipv4_address": "10.9.8.10"}}
    assert moved["networks"]["front"]["ipam"]["config"] == [
        {"subnet": "10.9.8.0/24", "gateway": "10.9.8.1", "ip_range": "10.9.8.128/25"}
    ]
    assert "10.213.64" not in str(moved)


def test_the_service_accepts_its_settings(tmp_path: Path) -> None:
    """The example receiver.toml, with the environment and the secrets where Compose mounts them."""
    receiver = SERVICES["receiver"]
    files = {"amazon-pay-key": merchant_key_pem().decode(), "finance-secret": SECRET, "redis-password": "hush"}
    environ = {name: str(value) for name, value in receiver["environment"].items()}
    (tmp_path / "receiver.toml").write_text((DEPLOY / "receiver.toml").read_text())
    for secret in receiver["secrets"]:
        name, target = (secret, f"/run/secrets/{secret}") if isinstance(secret, str) else secret.values()
        place = tmp_path / Path(target).name
        place.write_text(files[name])
        environ = {key: str(place) if value == target else value for key, value in environ.items()}
    settings = load(tmp_path / "receiver.toml", environ)
    assert settings.redis.address == read_address("redis://:hush@valkey:6379/0")
    assert settings.accounts[0].private_key_file == tmp_path / "amazon-pay.pem"
    assert [network.num_addresses for network in settings.http.trusted_proxies] == [1]
    grace = int(receiver["stop_grace_period"].removesuffix("s"))
    assert grace > settings.http.shutdown_timeout.total_seconds() + 2


def test_valkey_starts_with_its_settings_and_its_password(tmp_path: Path) -> None:
    """By the very command of Compose, on other paths and another port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = (DEPLOY / "valkey" / "valkey.conf").read_text()
    text = text.replace("dir /data", f"dir {tmp_path}").replace("port 6379", f"port {port}\nbind 127.0.0.1")
    (tmp_path / "valkey.conf").write_text(text)
    (tmp_path / "password").write_text("hush hush#1")
    script = SERVICES["valkey"]["command"][0].replace("$$", "$")
    script = script.replace("/etc/valkey/valkey.conf", str(tmp_path / "valkey.conf"))
    script = script.replace("/tmp/valkey.conf", str(tmp_path / "made.conf"))
    script = script.replace("/run/secrets/redis-password", str(tmp_path / "password"))
    script = script.replace("exec valkey-server", f"exec {find_program().path}")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["sh", "-euc", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        client = redis.Redis(port=port, password="hush hush#1", decode_responses=True)
        deadline = time.monotonic() + BOUND
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
        found = client.config_get("*")
        wanted = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
        wanted |= {"maxmemory-policy": "noeviction", "databases": "1", "stop-writes-on-bgsave-error": "yes"}
        assert {name: found[name] for name in wanted} == wanted
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        client.close()
        assert (tmp_path / "made.conf").stat().st_mode & 0o777 == 0o600
        assert b"hush" not in Path(f"/proc/{process.pid}/cmdline").read_bytes() or sys.platform != "linux"
    finally:
        stop_valkey(process)


def test_prometheus_scrapes_under_the_name_that_the_alerts_expect() -> None:
    """Else ReceiverGone would fire for ever."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    alerts = (DEPLOY / "prometheus" / "alerts.yml").read_text()
    assert set(re.findall(r'job="([^"$]+)"', alerts)) == {scrape["job_name"]}
    assert config["rule_files"] == ["alerts.yml"]
    assert os.fspath(scrape["static_configs"][0]["targets"][0]) == "receiver:8000"


def test_the_demo_needs_no_file_and_no_secret() -> None:
    """`docker compose --profile demo up` in a clone needs only the Dockerfile. The container is restricted like the
    others, and has no network, because everything runs inside."""
    demo: dict[str, Any] = yaml.safe_load((PROJECT / "compose.yaml").read_text())
    assert set(demo) == {"name", "services"}
    (service,) = demo["services"].values()
    assert service["profiles"] == ["demo"]
    assert service["command"] == ["demo"]
    assert service["network_mode"] == "none"
    assert not {"configs", "secrets", "volumes", "env_file", "environment", "depends_on"} & set(service)
    for key in ("init", "read_only", "cap_drop", "security_opt"):
        assert service[key] == SERVICES["receiver"][key], key
    assert (PROJECT / "compose.yaml").parent.joinpath(service["build"], "Dockerfile").is_file()
    assert "$" not in (PROJECT / "compose.yaml").read_text()
