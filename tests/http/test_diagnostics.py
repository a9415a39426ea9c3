"""`GET /v1/diagnostics`: what only the running process knows, and who may ask."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from receiver.http.api.diagnostics import DiagnosticsSource
from receiver.http.app import build
from receiver.receive.certificates import CertificateStore
from receiver.receive.receiver import Receiver
from receiver.runtime.metrics import Metrics
from receiver.runtime.version import package_version
from receiver.store import Store
from tests.http.kit import ADMIN, READER, US_ONLY, Service, listening, no_fetch, settings
from tests.kit.accounts import make_account
from tests.kit.clock import T0
from tests.kit.sns import NOW, SnsSigner

WORKERS = {"subscribers": "running", "track:us": "failing", "track:eu": "running"}


async def nothing() -> None:
    """No gauges."""


@pytest.fixture
async def service(store: Store, sns: SnsSigner) -> AsyncIterator[Service]:
    """An application with something to tell."""
    certificates = CertificateStore(no_fetch, lambda: NOW, pinned={sns.url: sns.pem})
    receiver = Receiver([make_account("us"), make_account("eu")], certificates, store, lambda: NOW)
    for name, times in (("arn:rare", 1), ("arn:often", 3)):
        for _ in range(times):
            receiver.unconfigured_topics.count(name, T0)
    receiver.unconfigured_accounts.count("us-east", T0)
    receiver.unconfigured_merchants.count("A2STRANGER", T0 + 1000)
    chosen = settings("us", "eu")
    app = build(
        chosen,
        receiver=receiver,
        store=store,
        metrics=Metrics(),
        now=lambda: NOW,
        checks={},
        refresh_gauges=nothing,
        inside=DiagnosticsSource("redis", receiver, certificates, lambda: WORKERS),
    )
    async with listening(app, chosen) as found:
        yield found


async def test_it_tells_what_nobody_configured(service: Service, sns: SnsSigner) -> None:
    """The most frequent first; certificates with their days; each worker's state."""
    answer = await service.get("/v1/diagnostics", token=ADMIN)
    assert answer.status == 200
    assert answer.json == {
        "version": package_version(),
        "time": "2026-01-01T00:00:00.000Z",
        "store": {"kind": "redis"},
        "workers": WORKERS,
        "unconfiguredAccounts": [{"name": "us-east", "count": 1, "lastSeen": "2025-10-09T08:53:20.000Z"}],
        "unconfiguredTopics": [
            {"name": "arn:often", "count": 3, "lastSeen": "2025-10-09T08:53:20.000Z"},
            {"name": "arn:rare", "count": 1, "lastSeen": "2025-10-09T08:53:20.000Z"},
        ],
        "unconfiguredMerchants": [{"name": "A2STRANGER", "count": 1, "lastSeen": "2025-10-09T08:53:21.000Z"}],
        "certificates": [{"file": sns.name, "notAfter": "2026-10-28T00:00:00.000Z", "daysLeft": 300}],
    }


async def test_it_is_for_administrators(service: Service) -> None:
    """Accounts that the token may not see are left out."""
    nobody = await service.get("/v1/diagnostics", token=None)
    reader = await service.get("/v1/diagnostics", token=READER)
    assert [(each.status, each.json["reason"]) for each in (nobody, reader)] == [
        (401, "token_missing"),
        (403, "scope_missing"),
    ]
    narrow = await service.get("/v1/diagnostics", token=US_ONLY)
    assert set(narrow.json["workers"]) == {"subscribers", "track:us"}
    odd = await service.get("/v1/diagnostics?account=us", token=ADMIN)
    assert odd.status == 400
