"""HTTP. The part of the control API that is about reports.

| route | does |
|---|---|
| `GET /simulator/reports` | all reports |
| `POST /simulator/settlements` `{}` | makes a settlement of everything since the last one, and its report (live only) |
| `POST /simulator/reports/rows` `{refundId, state?, amount?, missingIn?}` | from now on, reports show this of it |
| `POST /simulator/reports/failures` `{times}` | this many of the next reports end as FAILED |
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from receiver.simulator.control import answering, read_fields
from receiver.simulator.engine import Engine
from receiver.simulator.faults import invalid_value
from receiver.simulator.reports.api import report_json
from receiver.simulator.reports.book import TYPES, Alteration
from receiver.simulator.shapes import need


class ReportsControl:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/simulator/reports", answering(self.reports), methods=["GET"]),
            Route("/simulator/settlements", answering(self.settle), methods=["POST"]),
            Route("/simulator/reports/rows", answering(self.alter), methods=["POST"]),
            Route("/simulator/reports/failures", answering(self.fail), methods=["POST"]),
        ]

    async def reports(self, _: Request) -> Response:
        return JSONResponse({"reports": [report_json(each) for each in self._engine.reports.all()]})

    async def settle(self, request: Request) -> Response:
        await read_fields(request, set())
        self._engine.tick()
        report = self._engine.reports.settle()
        return JSONResponse({"report": report_json(report) if report else None}, 201 if report else 200)

    async def alter(self, request: Request) -> Response:
        found = await read_fields(request, {"refundId", "state", "amount", "missingIn"})
        refund = self._engine.bank.refund(str(need(found, "refundId")))
        missing = found.get("missingIn", [])
        if not isinstance(missing, list) or not {*missing} <= {*TYPES}:
            raise invalid_value("missingIn", f"it is a list of {', '.join(TYPES)}")
        altered = Alteration(str(found.get("state", "")), str(found.get("amount", "")), missing)
        self._engine.reports.alterations[refund.refund_id] = altered
        return Response(status_code=204)

    async def fail(self, request: Request) -> Response:
        times = need(await read_fields(request, {"times"}), "times")
        if not isinstance(times, int) or not 0 <= times <= 100:
            raise invalid_value("times", "it is 0 to 100")
        self._engine.reports.failing = times
        return Response(status_code=204)
