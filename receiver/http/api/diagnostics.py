"""HTTP. `/v1/diagnostics`: what only the running process knows, for those who run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal

from starlette.responses import Response

from receiver.http.api.auth import Caller
from receiver.http.api.operations import ADMIN, Answer, Call, Operation
from receiver.http.api.respond import json_answer
from receiver.http.api.schema import DiagnosticsJson, SightingJson
from receiver.ledger.timestamps import format_rfc3339
from receiver.receive.certificates import CertificateStore
from receiver.receive.receiver import Receiver, UnconfiguredNames

PACKAGE: Final = "amazon-pay-refund-receiver"
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class DiagnosticsSource:
    """What there is to tell. `store` is `embedded` or `redis`; `workers` gives each task's state: running, failing or
    ended."""

    store: Literal["embedded", "redis"]
    receiver: Receiver
    certificates: CertificateStore
    workers: Callable[[], Mapping[str, str]]


class DiagnosticsApi:
    """The handler. `now` is ms since the epoch, UTC."""

    def __init__(self, inside: DiagnosticsSource, now: Callable[[], int]) -> None:
        self._inside, self._now = inside, now

    @Operation(
        "GET",
        "/v1/diagnostics",
        id="getDiagnostics",
        tag="operation",
        summary="What only the running process knows, since its start",
        scopes=ADMIN,
        answers=(Answer(200, DiagnosticsJson),),
        store=False,
    )
    async def report(self, call: Call) -> Response:
        """Leaves out the workers of accounts that the token may not see; unconfigured topics and merchants belong to
        no account."""
        inside, now = self._inside, self._now()
        body: DiagnosticsJson = {
            "version": package_version(),
            "time": format_rfc3339(now),
            "store": {"kind": inside.store},
            "workers": {name: state for name, state in inside.workers().items() if _may_see(call.caller, name)},
            "unconfiguredTopics": sightings(inside.receiver.unconfigured_topics),
            "unconfiguredMerchants": sightings(inside.receiver.unconfigured_merchants),
            "certificates": [
                {
                    "file": each.name,
                    "notAfter": format_rfc3339(each.not_after),
                    "daysLeft": (each.not_after - now) // DAY_MS,
                }
                for each in inside.certificates.known()
            ],
        }
        return json_answer(body)


def sightings(unknowns: UnconfiguredNames) -> list[SightingJson]:
    """Most often seen first."""
    found = sorted(unknowns.listed().items(), key=lambda pair: -pair[1].count)
    return [{"name": name, "count": each.count, "lastSeen": format_rfc3339(each.last_seen)} for name, each in found]


def _may_see(caller: Caller, worker: str) -> bool:
    """Workers are called `track:us`, or are everybody's."""
    _, _, account = worker.partition(":")
    return not account or account in caller.accounts


def package_version() -> str:
    """The version that is installed; empty for code that is not."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return ""
