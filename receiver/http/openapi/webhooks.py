"""HTTP. What subscribers receive: for each type of event, a webhook of OpenAPI and a separate JSON Schema."""

from __future__ import annotations

from typing import Any, Final

from receiver.http.api.params import Schema
from receiver.http.openapi.describe import REF, components, named
from receiver.outbox.events.envelope import EVENT_ID
from receiver.outbox.formats.cloudevents import CONTENT_TYPE, SHAPE_OF

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
MEDIA_TYPE: Final = CONTENT_TYPE.partition(";")[0]
HEADERS: Final = {
    "webhook-id": (
        "The event's `id`, the same on every attempt.",
        {"type": "string", "pattern": f"^{EVENT_ID.pattern}$"},
    ),
    "webhook-timestamp": ("The time of this attempt, in seconds.", {"type": "string", "pattern": "^[0-9]+$"}),
    "webhook-signature": (
        "Standard Webhooks: `v1,` and the base64 of the HMAC-SHA256 over `id.timestamp.body`; one for each active "
        "secret, separated by spaces. Check it before you read the body.",
        {"type": "string", "pattern": "^v1,[A-Za-z0-9+/]+=*( v1,[A-Za-z0-9+/]+=*)*$"},
    ),
}
ANSWERS: Final = {
    "2XX": "Delivered. Answer once your effect is durable, within 10 s. Handle each `webhook-id` once.",
    "410": "You want no more events: the subscriber is paused, and its events wait.",
    "429": "Sent again at the time in `Retry-After`; so is a 503 with that header.",
    "default": "Sent again, up to eleven times within about three days; then kept as a dead delivery.",
}


def webhooks() -> dict[str, Schema]:
    """The member `webhooks`, by type of event."""
    return {type_: {"post": _webhook(type_)} for type_ in SHAPE_OF}


def event_schemas() -> dict[str, Schema]:
    """A JSON Schema (draft 2020-12) for each type of event. None refers to anything outside."""
    return {type_: _schema(type_) for type_ in SHAPE_OF}


def _webhook(type_: str) -> Schema:
    body = {"$ref": REF.format(name=named(SHAPE_OF[type_])), "properties": {"type": {"const": type_}}}
    return {
        "operationId": "on" + "".join(word.capitalize() for part in type_.split(".")[1:] for word in part.split("_")),
        "tags": ["webhooks"],
        "summary": _about(type_),
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": about, "schema": schema}
            for name, (about, schema) in HEADERS.items()
        ],
        "requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": body}}},
        "responses": {status: {"description": about} for status, about in ANSWERS.items()},
    }


def _schema(type_: str) -> Schema:
    parts = components([SHAPE_OF[type_]])
    whole = parts.pop(named(SHAPE_OF[type_]))
    whole |= {"description": _about(type_), "properties": {**whole["properties"], "type": {"const": type_}}}
    return {"$schema": DIALECT, "title": type_, **_inside(whole), "$defs": _inside(parts)}


def _about(type_: str) -> str:
    return next(about for word, about in SHAPE_OF[type_].TYPES.items() if word.value == type_)


def _inside(schema: Any) -> Any:
    """The same with references to `$defs` of the same file."""
    if isinstance(schema, list):
        return [_inside(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    place = REF.format(name="")
    return {key: value.replace(place, "#/$defs/") if key == "$ref" else _inside(value) for key, value in schema.items()}
