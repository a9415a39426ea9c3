"""HTTP. The dashboard's templates and static files, and their headers.

Templates escape every value. Static files are named by their content, so browsers may cache them for ever.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from receiver.http.dashboard.filters import FILTERS

FOLDER: Final = Path(__file__).parent
TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
FOR_EVER: Final = "public, max-age=31536000, immutable"
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from other origins, nothing inline."""
HEADERS: Final = MappingProxyType(
    {
        "Content-Security-Policy": CSP,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
)


@dataclass(frozen=True, slots=True)
class File:
    """A static file, and its path."""

    path: str
    media_type: str
    body: bytes


class Pages:
    """Templates and static files, read from disk once."""

    def __init__(self) -> None:
        files = {path.name: _file(path) for path in sorted((FOLDER / "static").iterdir()) if path.suffix in TYPES}
        self._by_path = {file.path: file for file in files.values()}
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters.update(FILTERS)
        self._templates.globals["static"] = {name: file.path for name, file in files.items()}

    def render(
        self, template: str, values: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Renders a page. Browsers do not store it (the frame sends `no-store`)."""
        html = self._templates.get_template(template).render(values)
        return Response(html, status, {**HEADERS, **(headers or {})}, "text/html; charset=utf-8")

    async def static(self, request: Request) -> Response:
        file = self._by_path.get(request.url.path)
        if file is None:
            raise HTTPException(404)
        return Response(file.body, headers={**HEADERS, "Cache-Control": FOR_EVER}, media_type=file.media_type)


def _file(path: Path) -> File:
    body = path.read_bytes()
    digest = urlsafe_b64encode(sha256(body).digest()).decode()[:12]
    return File(f"/static/{path.stem}.{digest}{path.suffix}", TYPES[path.suffix], body)
