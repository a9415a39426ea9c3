"""HTTP. `/v1/diagnostics`: what only the running process knows, for operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal

from starlette.responses import Response

from receiver.http.api.auth import Caller
from receiver.http.api.operations import ADMIN, Answer, Call, Operation
from receiver.http.api.respond import json_answer
from receiver.http.api.schema import CertificateJson, DiagnosticsJson, SightingJson, StoreJson
from receiver.ledger.timestamps import format_rfc3339
from receiver.receive.certificates import CertificateStore
from receiver.receive.receiver import Receiver, UnconfiguredNames

PACKAGE: Final = "amazon-pay-refund-receiver"
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class DiagnosticsSource:
    """The data to report. `store` is `embedded` or `redis`; `workers` gives each task's state: running, failing or
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
        summary="What this process has recorded since its start",
        scopes=ADMIN,
        answers=(Answer(200, DiagnosticsJson),),
        store=False,
    )
    async def report(self, call: Call) -> Response:
        """Omits the workers of accounts that the token may not see. Unconfigured topics and merchants belong to no
        account."""
        inside, now = self._inside, self._now()
        body = DiagnosticsJson(
            version=package_version(),
            time=format_rfc3339(now),
            store=StoreJson(
                kind=inside.store,
            ),
            workers={name: state for name, state in inside.workers().items() if _may_see(call.caller, name)},
            unconfigured_topics=unconfigured(inside.receiver.unconfigured_topics),
            unconfigured_merchants=unconfigured(inside.receiver.unconfigured_merchants),
            certificates=[
                CertificateJson(
                    file=each.name,
                    not_after=format_rfc3339(each.not_after),
                    days_left=(each.not_after - now) // DAY_MS,
                )
                for each in inside.certificates.known()
            ],
        )
        return json_answer(body)


def unconfigured(names: UnconfiguredNames) -> list[SightingJson]:
    found = sorted(names.listed().items(), key=lambda pair: -pair[1].count)
    return [
        SightingJson(
            name=name,
            count=each.count,
            last_seen=format_rfc3339(each.last_seen),
        )
        for name, each in found
    ]


def _may_see(caller: Caller, worker: str) -> bool:
    """A worker of one account is named like `track:us`; any other name is shared by all accounts."""
    _, _, account = worker.partition(":")
    return not account or account in caller.accounts


def package_version() -> str:
    """The installed version; empty if the package is not installed."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return ""
