"""HTTP. An endpoint is declared above its handler: route, scopes, parameters, answers, reasons.

    @Operation("GET", "/v1/refunds", id="listRefunds", scopes=READ, parameters=(STATE, LIMIT), …)
    async def many(self, call: Call) -> RefundListJson: …

The value that a handler returns is the body of its answer, with status 200. A handler with other statuses or headers
returns a `Response`, and declares its answers. `routes_of` turns an operation into a route, which checks the token, its
scope and the query's parameter names before the handler runs. `openapi/` turns it into the description.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, update_wrapper
from typing import Any, Final, TypeVar, get_type_hints

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from receiver.http.api.auth import Caller, Tokens, actor_of
from receiver.http.api.params import ACCOUNT, Parameter, Schema, check_query
from receiver.http.limits import Reads
from receiver.http.problems import ProblemJson
from receiver.http.respond import json_answer
from receiver.ledger.audit import Actor
from receiver.runtime.metrics import STORE_ERRORS
from receiver.settings.sections import Scope

T = TypeVar("T")
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[object]])
Reasons = Mapping[int, Sequence[str]]

JSON: Final = "application/json"
AMAZON: Final = "amazon_"
"""The prefix of the reasons of 502. The rest says how the exchange with Amazon ended; the set is open."""
READ, ISSUE, ADMIN = (Scope.READ,), (Scope.REFUND,), (Scope.ADMIN,)

STORE: Final[Reasons] = {503: tuple(sorted({f"store_{kind}" for kind in STORE_ERRORS} | {"store_unavailable"}))}
COMMIT: Final[Reasons] = {503: ("store_collision", "store_emptied")}
"""For operations that write refunds."""
QUERY: Final[Reasons] = {400: ("unknown_parameter", "repeated_parameter")}
NO_ACCOUNT: Final[Reasons] = {404: ("no_such_account",)}
SEVERAL: Final[Reasons] = {409: ("several_accounts",)}
OBJECT: Final[Reasons] = {400: ("not_json", "duplicate_key", "too_large", "body_timeout")}
IN_TURN: Final[Reasons] = {429: ("too_many_reads",), 503: ("overloaded",)}
ALWAYS: Final[Reasons] = {500: ("internal_error",), 501: ("transfer_encoding",)}
TOKEN: Final[Reasons] = {
    401: ("token_missing", "token_unknown"),
    403: ("scope_missing",),
    429: ("too_many_attempts",),
}

LOCATION: Final = {"Location": "URL of the refund."}
PENDING: Final = {"Retry-After": "Seconds to wait before asking again."}


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer. Its content is a type in JSON, or a type or schema for each media type."""

    status: int
    content: type | Mapping[str, Any] | None = None
    about: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, Schema] = field(default_factory=dict)

    @property
    def contents(self) -> Mapping[str, Any]:
        """By media type."""
        return {JSON: self.content} if isinstance(self.content, type) else self.content or {}


@dataclass(frozen=True, slots=True)
class Body:
    schema: Schema
    media_type: str = JSON
    required: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose token has the scope and whose query has only declared parameters."""

    request: Request
    caller: Caller

    def __getitem__(self, parameter: Parameter[T]) -> T:
        """The value of a parameter. Raises `BadRequest`."""
        return parameter.of(self.request)

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts to search: the one of `?account=`, or all that the token may see. Raises `NotFound`."""
        return self.caller.seen(self[ACCOUNT] or None)

    @property
    def actor(self) -> Actor:
        return actor_of(self.request, self.caller)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. Without `scopes` no token is needed; with several, one is enough.

    `in_turn`: it waits for its turn among the lists (`limits.py`). `store`: it needs the store, if it needs a token.
    `problem` is the type of its problems; None if refusals have no body. `reasons` are those in addition to the ones
    that every operation has.
    """

    method: str
    path: str
    id: str
    tag: str
    summary: str
    about: str = ""
    scopes: Sequence[Scope] = ()
    parameters: Sequence[Parameter[Any]] = ()
    body: Body | None = None
    answers: Sequence[Answer] = ()
    """Empty: what the handler returns, with status 200."""
    reasons: Sequence[Reasons] = ()
    in_turn: bool = False
    store: bool = True
    problem: type | None = ProblemJson
    bare: Mapping[int, str] = field(default_factory=dict)
    """Statuses of refusals without a body, and their meaning."""

    def __call__(self, handler: Handler) -> Handler:
        """Declare that the handler implements this operation."""
        returned = (Answer(200, get_type_hints(handler)["return"]),)
        handler.__dict__["operation"] = replace(self, answers=self.answers or returned)
        return handler

    @property
    def all_reasons(self) -> dict[int, list[str]]:
        """By status, in order."""
        found: dict[int, list[str]] = {}
        for each in (*self.reasons, *self._usual_reasons()):
            for status, words in each.items():
                if words and status not in self.bare:
                    found[status] = sorted({*found.get(status, ()), *words})
        return dict(sorted(found.items()))

    def _usual_reasons(self) -> Iterator[Reasons]:
        """The reasons that follow from how the request is checked and read."""
        if self.scopes:
            yield from (TOKEN, QUERY)
        if self.scopes and self.store:
            yield STORE
        yield {400: [each.reason for each in self.parameters if each.reason]}
        if ACCOUNT in self.parameters:
            yield NO_ACCOUNT
        if self.body and self.body.media_type == JSON:
            yield OBJECT
        if self.in_turn:
            yield IN_TURN
        yield ALWAYS


read_operation = partial(Operation, tag="refunds", scopes=READ)
issue_operation = partial(Operation, tag="issuing", scopes=ISSUE)
subscriber_operation = partial(Operation, tag="subscribers", scopes=ADMIN)
admin_operation = partial(Operation, tag="operation", scopes=ADMIN)


def operations_of(api: type) -> Iterator[tuple[str, Operation]]:
    """The handlers of a class that declare an operation, by name."""
    for name, handler in vars(api).items():
        if isinstance(operation := getattr(handler, "operation", None), Operation):
            yield name, operation


def routes_of(api: object, tokens: Tokens, reads: Reads) -> list[Route]:
    found = []
    for name, operation in operations_of(type(api)):
        handler = getattr(api, name)
        endpoint = _Checked(operation, handler, tokens, reads) if operation.scopes else handler
        found.append(Route(operation.path, endpoint, methods=[operation.method]))
    return found


class _Checked:
    """The handler with its checks: token, scope, turn, names in the query.

    It is an ASGI application: around a function, Starlette would put a second layer that looks for exceptions.
    """

    def __init__(
        self, operation: Operation, handler: Callable[[Any], Awaitable[object]], tokens: Tokens, reads: Reads
    ) -> None:
        self._operation, self._handler, self._tokens, self._reads = operation, handler, tokens, reads
        update_wrapper(self, handler)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        caller = self._tokens.identify(request)
        caller.need(*self._operation.scopes)
        if self._operation.in_turn:
            async with self._reads.turn(caller.name):
                answer = await self._handle(request, caller)
        else:
            answer = await self._handle(request, caller)
        await answer(scope, receive, send)

    async def _handle(self, request: Request, caller: Caller) -> Response:
        check_query(request, self._operation.parameters)
        answer = await self._handler(Call(request, caller))
        return answer if isinstance(answer, Response) else json_answer(answer)
