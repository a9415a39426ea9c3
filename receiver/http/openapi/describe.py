"""HTTP. Renders an operation as OpenAPI 3.1: parameters, bodies, answers, problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from receiver.http.api.operations import ALWAYS, AMAZON, STORE, TOKEN, Answer, Body, Operation
from receiver.http.api.params import Parameter, Schema
from receiver.http.problems import MEDIA_TYPE as PROBLEM
from receiver.http.problems import ProblemJson

REF: Final = "#/components/schemas/{name}"
BEARER: Final = "token"

MEANINGS: Final = {
    200: "OK.",
    201: "Done.",
    202: "Accepted, still in progress.",
    204: "Removed.",
    304: "Unchanged since the `ETag` in `If-None-Match`.",
    400: "The request is invalid.",
    401: "A valid token is required.",
    403: "The token lacks the scope.",
    404: "Not found, or not visible to the token.",
    409: "The request conflicts with the current state.",
    413: "The body is too large.",
    415: "The body has a Content-Encoding.",
    422: "Amazon refused.",
    429: "Too many wrong tokens from this address (a right one is blocked too), or too many requests by this token.",
    500: "Internal error. See the service's log for this request's id.",
    501: "A transfer coding other than chunked.",
    502: "Amazon did not answer, or its answer could not be understood.",
    503: "A temporary problem of the service, usually with Redis: the same request may succeed later.",
}
SHARED: Final[Mapping[str, tuple[int, Sequence[str]]]] = {
    "Unauthorized": (401, TOKEN[401]),
    "Forbidden": (403, TOKEN[403]),
    "TooManyAttempts": (429, TOKEN[429]),
    "Fault": (500, ALWAYS[500]),
    "TransferCoding": (501, ALWAYS[501]),
    "StoreUnavailable": (503, STORE[503]),
}
"""Problems that many operations have, with the same text."""


def types_of(operation: Operation) -> list[type]:
    found = [each for answer in operation.answers for each in answer.contents.values() if not isinstance(each, dict)]
    return [*found, *([operation.problem] if operation.problem else [])]


def described(operation: Operation) -> Schema:
    return {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        **({"description": operation.about} if operation.about else {}),
        "security": [{BEARER: [scope.value]} for scope in operation.scopes],
        **({"parameters": [_parameter(each) for each in operation.parameters]} if operation.parameters else {}),
        **({"requestBody": _body(operation.body)} if operation.body else {}),
        "responses": dict(sorted(_answers(operation).items())),
    }


def _parameter(parameter: Parameter[Any]) -> Schema:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.about,
        **({"required": True} if parameter.required else {}),
        "schema": parameter.schema,
        **({} if parameter.example is None else {"example": parameter.example}),
    }


def _answers(operation: Operation) -> dict[str, Schema]:
    good = {str(answer.status): _answer(answer) for answer in operation.answers}
    bare = {
        str(status): {"description": about, **({"headers": _retry_after()} if status == 503 else {})}
        for status, about in operation.bare.items()
    }
    problems = {
        str(status): _problem(status, words, operation.problem or ProblemJson)
        for status, words in operation.all_reasons.items()
        if str(status) not in good
    }
    return {**problems, **bare, **good}


def named(shape: type) -> str:
    """The name of a shape's component: the class name without its suffix."""
    return shape.__name__.removesuffix("Json")


def components(shapes: Sequence[type]) -> dict[str, Schema]:
    """The schemas of the shapes and of everything that they contain, by name."""
    _, found = msgspec.json.schema_components(shapes, ref_template=REF)
    return {name.removesuffix("Json"): _tidy(schema) for name, schema in sorted(found.items())}


def _tidy(schema: Any) -> Any:
    """Uses the components' names and removes titles. A default is for clients: the service always sends the field."""
    if isinstance(schema, list):
        return [_tidy(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: _tidy(value)
        for key, value in schema.items()
        if key != "default" and not (key == "title" and isinstance(value, str))
    }
    if isinstance(kept.get("$ref"), str):
        kept["$ref"] = kept["$ref"].removesuffix("Json")
    if schema.get("type") == "object" and "properties" in schema:
        sent = schema.get("required", [])
        fields = schema["properties"].items()
        kept["required"] = sorted(name for name, each in fields if name in sent or "default" in each)
    return kept


def _content(content: type | Schema) -> Schema:
    return {"schema": content if isinstance(content, dict) else {"$ref": REF.format(name=named(content))}}


def _answer(answer: Answer) -> Schema:
    headers = {name: {"description": about, "schema": {"type": "string"}} for name, about in answer.headers.items()}
    return {
        "description": answer.about or MEANINGS[answer.status],
        **({"headers": headers} if headers else {}),
        **({"content": {kind: _content(each) for kind, each in answer.contents.items()}} if answer.contents else {}),
        **({"links": dict(answer.links)} if answer.links else {}),
    }


def _body(body: Body) -> Schema:
    return {
        "required": body.required,
        "content": {body.media_type: {"schema": body.schema}},
    }


def shared_answers() -> dict[str, Schema]:
    return {name: _whole_problem(status, words, ProblemJson) for name, (status, words) in SHARED.items()}


def _problem(status: int, reasons: Sequence[str], shape: type) -> Schema:
    for name, (of, words) in SHARED.items():
        if (status, sorted(reasons)) == (of, sorted(words)):
            return {"$ref": f"#/components/responses/{name}"}
    return _whole_problem(status, reasons, shape)


def _whole_problem(status: int, reasons: Sequence[str], shape: type) -> Schema:
    """The shape with its possible reasons, next to a reference, as OpenAPI 3.1 allows."""
    of_amazon = list(reasons) == [AMAZON]
    reason = {"type": "string", "pattern": f"^{AMAZON}[a-z0-9_]+$"} if of_amazon else {"enum": list(reasons)}
    schema = {**_content(shape)["schema"], "properties": {"reason": reason}}
    headers: Schema = _retry_after() if status in (429, 503) else {}
    if status in (401, 403):
        headers = {"WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}}}
    return {
        "description": MEANINGS[status],
        **({"headers": headers} if headers else {}),
        "content": {PROBLEM: {"schema": schema}},
    }


def _retry_after() -> Schema:
    return {"Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer", "minimum": 0}}}
