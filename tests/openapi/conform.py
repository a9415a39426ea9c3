"""Every answer that a test gets is compared with the description: status, content type, headers, body, reason. So is
every event that a subscriber is sent.

More strictly than a client may: a member that the description does not know is a fault.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import jsonschema_rs
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver.http.openapi import OPERATIONS, document
from receiver.http.openapi.webhooks import event_schemas

Schema = dict[str, Any]


@cache
def places() -> list[tuple[re.Pattern[str], str]]:
    """A pattern for each path, those without parameters first."""
    templates = sorted({path for path, _ in OPERATIONS}, key=lambda path: path.count("{"))
    return [(re.compile(re.sub(r"\{\w+\}", "[^/]+", template)), template) for template in templates]


def operation_of(method: str, path: str) -> Schema | None:
    """The description of the path and method; for HEAD, that of GET. None: not described."""
    trimmed = re.sub("/{2,}", "/", path).rstrip("/") if re.match("/+(ipn|fps)", path) else path
    template = next((template for pattern, template in places() if pattern.fullmatch(trimmed)), "")
    asked = "get" if method == "HEAD" else method.lower()
    found: Schema | None = document()["paths"].get(template, {}).get(asked)
    return found


@cache
def components() -> Schema:
    """The schemas, which allow only the described members in an object."""
    schemas = json.loads(json.dumps(document()["components"]["schemas"]))
    return {"schemas": {name: {"additionalProperties": False, **schema} for name, schema in schemas.items()}}


@cache
def validator(schema: str) -> Any:
    """A judge of bodies."""
    return jsonschema_rs.Draft202012Validator({**json.loads(schema), "components": components()}, validate_formats=True)


@cache
def event_validator(type_: str) -> Any:
    """A validator of events of this type, which allows only the described members; None: no such type."""
    schema = event_schemas().get(type_)
    if schema is None:
        return None
    parts = {name: {"additionalProperties": False, **part} for name, part in schema["$defs"].items()}
    closed = {**schema, "additionalProperties": False, "$defs": parts}
    return jsonschema_rs.Draft202012Validator(closed, validate_formats=True)


def event_faults(body: bytes | str) -> list[str]:
    """What the schema of its type does not say of this event, a sentence each."""
    event = json.loads(body)
    judge = event_validator(event["type"])
    if judge is None:
        return [f"{event['type']} has no schema"]
    return [f"{event['type']} {error.instance_path}: {error.message}" for error in judge.iter_errors(event)]


def faults_of(method: str, path: str, status: int, headers: dict[str, str], body: bytes) -> list[str]:
    """What the description does not say of this answer, a sentence each."""
    operation = operation_of(method, path)
    if operation is None:
        return []
    answer = operation["responses"].get(str(status))
    if answer is None:
        return [f"the status is not described: {body[:300]!r}"]
    if "$ref" in answer:
        answer = document()["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    wanted = {name.lower() for name, each in answer.get("headers", {}).items() if each.get("required")}
    faults = [f"there is no {name}" for name in sorted(wanted - headers.keys())]
    content, kind = answer.get("content", {}), headers.get("content-type", "")
    if not content:
        return [*faults, *([f"there is a body: {body[:100]!r}"] if body else [])]
    described = content.get(kind) or content.get(kind.partition(";")[0])
    if described is None:
        return [*faults, f"the content type {kind!r} is not described"]
    if method == "HEAD" or not kind.endswith("json"):
        return faults
    judge = validator(json.dumps(described["schema"]))
    return faults + [f"{error.instance_path}: {error.message}" for error in judge.iter_errors(json.loads(body))]


class Judge:
    """Around an application: lets everything pass, and remembers what is wrong with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.faults: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        start: Message = {}
        body = bytearray()

        async def seen(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    self._judge(method, path, start, bytes(body))

        await self._app(scope, receive, seen)

    def _judge(self, method: str, path: str, start: Message, body: bytes) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
        faults = faults_of(method, path, start["status"], headers, body)
        self.faults += [f"{method} {path} {start['status']}: {fault}" for fault in faults]


@contextmanager
def judged(app: ASGIApp) -> Iterator[Judge]:
    """The application, judged while the block lasts; at its end there is no fault."""
    judge = Judge(app)
    yield judge
    assert judge.faults == []
