"""HTTP. All routes of the simulator, as one ASGI app."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from receiver.simulator.api import Api, on_http_exception
from receiver.simulator.control import Control
from receiver.simulator.engine import Engine
from receiver.simulator.fps.api import Fps
from receiver.simulator.reports.api import ReportsApi
from receiver.simulator.reports.control import ReportsControl


def build_app(engine: Engine) -> Starlette:
    """The ASGI app for an engine: the API, the control API, and the legacy Flexible Payments."""
    api = Api(engine)
    parts = (Control(engine), ReportsControl(engine), Fps(engine), api, ReportsApi(engine, api))
    app = Starlette(
        routes=[route for part in parts for route in part.routes()],
        exception_handlers={HTTPException: on_http_exception},
    )
    app.router.redirect_slashes = False
    return app
