"""HTTP. What an operation is described with, and how it becomes OpenAPI 3.1: parameters, bodies, answers, reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from receiver.http.problems import MEDIA_TYPE as PROBLEM
from receiver.http.problems import ProblemJson
from receiver.runtime.metrics import STORE_ERRORS
from receiver.settings.sections import Scope

Schema = dict[str, Any]
Reasons = Mapping[int, Sequence[str]]

JSON: Final = "application/json"
REF: Final = "#/components/schemas/{name}"
BEARER: Final = "token"
AMAZON: Final = "amazon_"
"""How the reasons of 502 begin: what follows says how the exchange with Amazon ended, and the set is open."""

MEANINGS: Final = {
    200: "Here it is.",
    201: "It is done.",
    202: "It is written down, and not done yet.",
    204: "It is gone.",
    304: "It has not changed since the `ETag` in `If-None-Match`.",
    400: "The request is wrong.",
    401: "A token is needed, and one that is configured.",
    403: "The token lacks the scope.",
    404: "There is no such thing, or the token may not see it.",
    409: "The request contradicts what is there.",
    413: "The body is too large.",
    415: "The body is encoded.",
    422: "Amazon refused.",
    429: "Too many wrong tokens came from this address, also for the right one; or this token has asked for too much.",
    500: "The service has a fault; its log says more, under the request's id.",
    501: "A transfer coding other than chunked.",
    502: "Amazon did not answer, or not so that it could be understood.",
    503: "The service's own trouble, most often with Redis: the same request may succeed later.",
}

STORE: Final[Reasons] = {503: tuple(sorted({f"store_{kind}" for kind in STORE_ERRORS} | {"store_unavailable"}))}
COMMIT: Final[Reasons] = {503: ("store_collision", "store_emptied")}
"""Of what writes refunds."""
QUERY: Final[Reasons] = {400: ("unknown_parameter", "repeated_parameter")}
ACCOUNT: Final[Reasons] = {404: ("no_such_account",)}
SEVERAL: Final[Reasons] = {**ACCOUNT, 409: ("several_accounts",)}
OBJECT: Final[Reasons] = {400: ("not_json", "duplicate_key", "too_large", "body_timeout")}
LISTED: Final[Reasons] = {429: ("too_many_reads",), 503: ("overloaded",)}
"""Of lists, which are read in turns."""
EVERYBODY: Final[Reasons] = {500: ("internal_error",), 501: ("transfer_encoding",)}
TOKEN: Final[Reasons] = {
    401: ("token_missing", "token_unknown"),
    403: ("scope_missing",),
    429: ("too_many_attempts",),
}

SHARED: Final[Mapping[str, tuple[int, Sequence[str]]]] = {
    "Unauthorized": (401, TOKEN[401]),
    "Forbidden": (403, TOKEN[403]),
    "TooManyAttempts": (429, TOKEN[429]),
    "Fault": (500, EVERYBODY[500]),
    "TransferCoding": (501, EVERYBODY[501]),
    "StoreUnavailable": (503, STORE[503]),
}
"""Problems that many operations have, word for word."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One in the path, the query or a header."""

    name: str
    about: str
    schema: Schema
    place: str = "query"
    required: bool = False
    example: object = None

    def described(self) -> Schema:
        """As OpenAPI has it."""
        return {
            "name": self.name,
            "in": self.place,
            "description": self.about,
            **({"required": True} if self.required else {}),
            "schema": self.schema,
            **({} if self.example is None else {"example": self.example}),
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """One that is no problem: its status, and its content by media type. A content is a shape or a schema."""

    status: int
    content: Mapping[str, type | Schema] = field(default_factory=dict)
    about: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, Schema] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Body:
    """What a request brings. `schema` may be the name of a component."""

    schema: Schema
    media_type: str = JSON
    required: bool = True
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What can be asked of one path with one method. `scopes`: one of them is needed; none: no token at all.

    `problem` is the shape of its problems; None where refusals have no body. `reasons` go with their statuses, beside
    those that everybody can get.
    """

    id: str
    tag: str
    summary: str
    answers: Sequence[Answer]
    about: str = ""
    scopes: Sequence[Scope] = ()
    parameters: Sequence[Parameter] = ()
    body: Body | None = None
    reasons: Sequence[Reasons] = ()
    problem: type | None = ProblemJson
    bare: Mapping[int, str] = field(default_factory=dict)
    """Statuses of refusals that have no body, and what they mean."""

    @property
    def all_reasons(self) -> dict[int, list[str]]:
        """By status, in order."""
        found: dict[int, list[str]] = {}
        for each in (*self.reasons, TOKEN if self.scopes else {}, EVERYBODY):
            for status, words in each.items():
                if status not in self.bare:
                    found[status] = sorted({*found.get(status, ()), *words})
        return dict(sorted(found.items()))

    @property
    def shapes(self) -> list[type]:
        """Those that its answers have."""
        found = [each for answer in self.answers for each in answer.content.values() if not isinstance(each, dict)]
        return [*found, *([self.problem] if self.problem else [])]

    def described(self) -> Schema:
        """As OpenAPI has it."""
        security = [{BEARER: [scope.value]} for scope in self.scopes]
        return {
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            **({"description": self.about} if self.about else {}),
            "security": security,
            **({"parameters": [each.described() for each in self.parameters]} if self.parameters else {}),
            **({"requestBody": _body(self.body)} if self.body else {}),
            "responses": dict(sorted(self._answers().items())),
        }

    def _answers(self) -> dict[str, Schema]:
        good = {str(answer.status): _answer(answer) for answer in self.answers}
        bare = {
            str(status): {"description": about, **({"headers": _retry_after()} if status == 503 else {})}
            for status, about in self.bare.items()
        }
        problems = {
            str(status): _problem(status, words, self.problem or ProblemJson)
            for status, words in self.all_reasons.items()
            if str(status) not in good
        }
        return {**problems, **bare, **good}


def named(shape: type) -> str:
    """The name of a shape's component: that of the class, without the suffix by which the code tells it apart."""
    return shape.__name__.removesuffix("Json")


def components(shapes: Sequence[type]) -> dict[str, Schema]:
    """The schemas of the shapes and of all that they hold, by name."""
    _, found = msgspec.json.schema_components(shapes, ref_template=REF)
    return {name.removesuffix("Json"): _tidy(schema) for name, schema in sorted(found.items())}


def _tidy(schema: Any) -> Any:
    """With the components' names; a title that only repeats one is left out."""
    if isinstance(schema, list):
        return [_tidy(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _tidy(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    if isinstance(kept.get("$ref"), str):
        kept["$ref"] = kept["$ref"].removesuffix("Json")
    return kept


def _content(content: type | Schema) -> Schema:
    return {"schema": content if isinstance(content, dict) else {"$ref": REF.format(name=named(content))}}


def _answer(answer: Answer) -> Schema:
    headers = {name: {"description": about, "schema": {"type": "string"}} for name, about in answer.headers.items()}
    return {
        "description": answer.about or MEANINGS[answer.status],
        **({"headers": headers} if headers else {}),
        **({"content": {kind: _content(each) for kind, each in answer.content.items()}} if answer.content else {}),
        **({"links": dict(answer.links)} if answer.links else {}),
    }


def _body(body: Body) -> Schema:
    return {
        **({"description": body.about} if body.about else {}),
        "required": body.required,
        "content": {body.media_type: {"schema": body.schema}},
    }


def shared_answers() -> dict[str, Schema]:
    """The components that are answers."""
    return {name: _whole_problem(status, words, ProblemJson) for name, (status, words) in SHARED.items()}


def _problem(status: int, reasons: Sequence[str], shape: type) -> Schema:
    for name, (of, words) in SHARED.items():
        if (status, sorted(reasons)) == (of, sorted(words)):
            return {"$ref": f"#/components/responses/{name}"}
    return _whole_problem(status, reasons, shape)


def _whole_problem(status: int, reasons: Sequence[str], shape: type) -> Schema:
    """The shape with the reasons that there can be: beside a reference, as OpenAPI 3.1 allows."""
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
