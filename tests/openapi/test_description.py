"""The description says the same as the code: routes, parameters, fields, scopes and reasons, both ways."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route
from typer.testing import CliRunner

import receiver
from receiver.commands.cli import app as commands
from receiver.http.api.operations import ALWAYS, AMAZON, QUERY, STORE, TOKEN
from receiver.http.dashboard.routes import Dashboard
from receiver.http.dashboard.sessions import Sessions
from receiver.http.limits import Reads, Refreshes
from receiver.http.openapi import OPERATIONS, document, encoded
from receiver.http.openapi.describe import MEANINGS
from receiver.ledger.retryability import BUYER_MAY_BE_PAID
from receiver.settings.sections import Scope
from tests.http.kit import all_routes
from tests.kit.processes import PROJECT
from tests.openapi.conform import faults_of
from tests.openapi.stage import HEADERS, House, house

SOURCES = Path(receiver.__file__).parent
NOT_IN_OPENAPI = {"/ipn/", "/ipn/{account}/", "/fps/{account}/"}
"""Other spellings of paths that are described."""


def routes() -> list[Route]:
    """Those of the application, without the dashboard's."""
    anything: Any = object()
    pages = Dashboard(anything, anything, Sessions(lambda: 0), {}, lambda: 0, Refreshes(0), Reads(), anything).routes()
    own = {route.path for route in pages if isinstance(route, Route)}
    return [route for route in all_routes().routes if isinstance(route, Route) and route.path not in own]


def test_it_is_valid() -> None:
    """By the validator of other people, and as JSON."""
    OpenAPIV31SpecValidator(document()).validate()
    assert json.loads(encoded()[0]) == document()


def test_every_route_is_described_and_every_described_route_is_there() -> None:
    """Path by path and method by method; an endpoint that takes every method refuses all but POST by itself."""
    found = {
        (route.path, method.lower())
        for route in routes()
        for method in (route.methods or {"POST"}) - {"HEAD"}
        if route.path not in NOT_IN_OPENAPI
    }
    assert found == set(OPERATIONS)


def test_names_of_operations_are_names() -> None:
    """Client generators make functions of them."""
    names = [operation.id for operation in OPERATIONS.values()]
    assert len({*names}) == len(names)
    assert all(re.fullmatch(r"[a-z]+([A-Z][a-z]+)*", name) for name in names)


def given(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of the tree, without the reasons by status that an operation declares."""
    if isinstance(node, ast.Dict) and any(isinstance(key, ast.Constant) and key.value in MEANINGS for key in node.keys):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from given(child)


def reasons_in(path: Path) -> Iterator[str]:
    """Every literal that is given as a `reason`, or that a class of errors has, or that looks like one."""
    for node in given(ast.parse(path.read_text())):
        is_given = isinstance(node, ast.keyword) and node.arg == "reason"
        is_named = isinstance(node, ast.Assign) and [getattr(each, "id", "") for each in node.targets] == ["reason"]
        if (
            isinstance(node, ast.keyword | ast.Assign)
            and (is_given or is_named)
            and isinstance(node.value, ast.Constant)
        ):
            yield str(node.value.value)
        if isinstance(node, ast.Constant) and re.fullmatch(r"bad_[a-z_]+", str(node.value)):
            yield str(node.value)


FPS_WORDS = {"bad_transaction_id", "bad_reference", "bad_description", "bad_policy"}
"""Put together from parts in amazon/fps/calls.py."""
BEHIND = [
    *("issue", "track/record.py", "store/deliveries/subscribers.py", "ledger/charge.py", "ledger/query.py"),
    *("outbox/subscribers/changes.py", "outbox/subscribers/subscriber.py", "outbox/events/cursor.py"),
]
"""What refuses behind the routes."""
SHARED = ["api/auth", "limits", "api/params", "api/bodies", "api/lookup", "api/listing", "feed/reader"]
BODIES = {"deliveries": ["redrive"], "subscribers": ["subscriber_bodies"]}
"""Modules that read the bodies for a module of handlers."""


def module_of(route: Route) -> str:
    """The module that answers."""
    endpoint = route.endpoint
    return endpoint.__self__.__class__.__module__ if isinstance(endpoint, MethodType) else endpoint.__module__


def listed(*operations: Any) -> set[str]:
    return {word for each in operations for words in each.all_reasons.values() for word in words}


def test_a_module_gives_no_reason_that_its_routes_do_not_list() -> None:
    """The literals in each module of handlers, against the operations that it answers."""
    by_module: dict[str, list[Any]] = {}
    for route in routes():
        for method in route.methods or ():
            if (route.path, method.lower()) in OPERATIONS:
                by_module.setdefault(module_of(route), []).append(OPERATIONS[route.path, method.lower()])
    assert len(by_module) > 6
    for module, operations in by_module.items():
        path = SOURCES.joinpath(*module.split(".")[1:]).with_suffix(".py")
        notified = {"fps_no_order"} if module.endswith("http.api.fps") else set()
        files = [path, *(path.with_stem(name) for name in BODIES.get(path.stem, ()))] if path.exists() else []
        for each in files:
            assert set(reasons_in(each)) - notified <= listed(*operations), module


def test_every_reason_that_can_be_answered_is_listed() -> None:
    """The literals of the modules behind the routes, and of those that they share."""
    files = [file for name in BEHIND for file in (SOURCES / name, *(SOURCES / name).glob("*.py"))]
    files += [SOURCES / "http" / f"{name}.py" for name in SHARED]
    found = {word for file in files if file.is_file() for word in reasons_in(file)}
    assert len(found) > 30
    # Of exchanges with Amazon, whose end the reasons of 502 tell.
    inside = {word for word in found if word.startswith(AMAZON)} | {"bad_url"}
    assert found - inside - listed(*OPERATIONS.values()) == set()


def test_the_page_on_issuing_names_every_refusal() -> None:
    """Those of the store by their prefix. Reasons for a query that no caller needs are left out."""
    page = (PROJECT / "deploy" / "issuing.md").read_text()
    issuing = [each for (_, method), each in OPERATIONS.items() if (each.tag, method) == ("issuing", "post")]
    left_out = {word for reasons in (QUERY, TOKEN, ALWAYS) for words in reasons.values() for word in words}
    told = {re.sub(r"^store_.*", "store_", word) for word in listed(*issuing) - left_out}
    assert len(told) > 40
    assert sorted(word for word in told if f"`{word}" not in page) == []


def test_no_reason_is_listed_that_nothing_gives() -> None:
    """Each occurs in the code or in the reserving script, or is made from a table in the code."""
    files = [file for file in SOURCES.rglob("*.py") if file.parent.name != "openapi"]
    found = {word for file in files for word in reasons_in(file)}
    of_script = {*re.findall(r"'([a-z_]+)'", (SOURCES / "store" / "requests" / "reserve.lua").read_text())}
    made = {*STORE[503], *FPS_WORDS, AMAZON, BUYER_MAY_BE_PAID, "transfer_encoding", *ALWAYS[500]}
    assert listed(*OPERATIONS.values()) - found - of_script - made == set()


@pytest.fixture
async def place(redis: Any, valkey_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with house(valkey_url, tmp_path) as found:
        yield found


def with_token() -> Iterator[tuple[str, str]]:
    """Path and method of every operation that needs a token."""
    return ((path, method) for (path, method), operation in OPERATIONS.items() if operation.scopes)


async def ask(place: House, path: str, method: str, more: str = "", body: Any = None, **headers: str) -> Any:
    """Status and JSON of a call, with the examples of the description in the path and, if need be, in the body."""
    operation = document()["paths"][path][method]
    for each in operation.get("parameters", ()):
        path = path.replace(f"{{{each['name']}}}", str(each.get("example")))
    sent = {"Idempotency-Key": "k", **HEADERS, **{name: text for name, text in headers.items() if text}}
    if "Authorization" in headers and not headers["Authorization"]:
        del sent["Authorization"]
    url = f"{place.stage.url}{path}{more}"
    async with place.stage.session.request(method.upper(), url, headers=sent, json=body) as answer:
        return answer.status, await answer.json(content_type=None) if answer.status != 204 else None


def example_of(path: str, method: str) -> dict[str, Any] | None:
    """A body that is taken; none where none is read."""
    operation = OPERATIONS[path, method]
    if operation.body is None:
        return None
    schema = operation.body.schema
    return dict(schema.get("oneOf", [schema])[0]["examples"][0])


async def test_parameters_are_those_that_the_handlers_know(place: House) -> None:
    """A handler that is asked with another one names those that it knows."""
    for path, method in with_token():
        status, problem = await ask(place, path, method, "?qqqqqqqq=1", example_of(path, method))
        assert (status, problem["reason"]) == (400, "unknown_parameter"), path
        known = re.search(r"Known parameters: (.*)\.$", problem["detail"])
        described = {each.name for each in OPERATIONS[path, method].parameters if each.place == "query"}
        assert set(known[1].split(", ") if known else []) == described, (path, method)


def camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


ELSEWHERE = {"addSubscriber": {"account", "start"}, "putSubscriber": {"start"}}
"""Fields that are read before the others."""
NOT_CHANGED = {"changeSubscriber": {"name", "format", "secrets"}}


async def test_fields_are_those_that_the_handlers_know(place: House) -> None:
    """A handler that is sent another one names those that it knows."""
    asked = 0
    for path, method in with_token():
        operation = OPERATIONS[path, method]
        if operation.body is None or operation.id == "settleRefundRequest":
            continue
        status, problem = await ask(place, path, method, body={**(example_of(path, method) or {}), "qqqqqqqq": 1})
        assert status == 400, (path, problem)
        known = re.search(r"[kK]nown(?: are|:| fields:) ([^.\n]*)", problem["detail"])
        assert known, problem
        schema = operation.body.schema
        described = {name for each in schema.get("oneOf", [schema]) for name in each["properties"]}
        told = {camel(name) for name in known[1].split(", ")} | ELSEWHERE.get(operation.id, set())
        assert told - NOT_CHANGED.get(operation.id, set()) == described, path
        asked += 1
    assert asked == 11


def test_the_page_about_tokens_names_every_request_with_its_scopes() -> None:
    """Those of the description, which are those that the handlers need."""
    page = (PROJECT / "deploy" / "README.md").read_text()
    section = page.partition("\n## Tokens and scopes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([A-Z]+) (/\S+)` \| (.*) \|$", section, re.MULTILINE)
    listed = {(path, method.lower()): set(re.findall(r"`(\w+)`", scopes)) for method, path, scopes in rows}
    assert len(listed) == len(rows)
    open_to_all = re.findall(r"`([A-Z]+) (/\S+)`", section.partition("\nWithout a token:")[2])
    listed |= {(path, method.lower()): set() for method, path in open_to_all}
    assert listed == {key: {str(scope) for scope in operation.scopes} for key, operation in OPERATIONS.items()}


async def test_scopes_are_those_that_the_handlers_need(place: House) -> None:
    """Without a token 401; with each scope alone 403 or not, as described. What needs no token is answered."""
    for path, method in with_token():
        status, problem = await ask(place, path, method, Authorization="")
        assert (status, problem["reason"]) == (401, "token_missing"), path
        for scope in Scope:
            status, problem = await ask(place, path, method, "?qqqqqqqq=1", Authorization=f"Bearer only-{scope}")
            assert (status == 403) == (scope not in OPERATIONS[path, method].scopes), (path, scope, problem)
    for path, method in OPERATIONS:
        if not OPERATIONS[path, method].scopes and method == "get":
            status, _ = await ask(place, path, method, Authorization="") if path != "/metrics" else (200, None)
            assert status == 200


async def test_it_is_answered_to_everybody_and_can_be_kept(place: House) -> None:
    """With a strong tag, by which it is not sent twice; HEAD has the same head."""
    url = f"{place.stage.url}/openapi.json"
    async with place.stage.session.get(url) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.json() == document()
        assert answer.headers["Cache-Control"] == "public, max-age=300"
        tag = answer.headers["ETag"]
    async with place.stage.session.get(url, headers={"If-None-Match": f'"other", {tag}'}) as answer:
        assert (answer.status, await answer.read(), answer.headers["ETag"]) == (304, b"", tag)
    async with place.stage.session.head(url) as answer:
        assert (answer.status, answer.headers["ETag"]) == (200, tag)
    async with place.stage.session.post(url, headers={"Accept": "text/html"}) as answer:
        assert (answer.status, answer.headers["Allow"], (await answer.json())["reason"]) == (405, "GET, HEAD", "method")


def test_the_command_prints_the_same() -> None:
    """For client generators, without a service."""
    result = CliRunner().invoke(commands, ["openapi"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == document()


GOOD = {"status": "alive"}
WRONG: dict[str, tuple[int, dict[str, str], Any, str]] = {
    "status": (418, {"content-type": "application/json"}, GOOD, "the status is not described"),
    "content type": (200, {"content-type": "text/html"}, GOOD, "the content type 'text/html' is not described"),
    "value": (200, {"content-type": "application/json"}, {"status": "dead"}, "/status|dead"),
    "member": (200, {"content-type": "application/json"}, {**GOOD, "more": 1}, "more"),
    "missing": (200, {"content-type": "application/json"}, {}, "status"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_judge_of_answers_sees_what_is_wrong(name: str) -> None:
    """Else it would judge nothing; the right answer passes."""
    status, headers, body, word = WRONG[name]
    found = faults_of("GET", "/healthz", status, headers, json.dumps(body).encode())
    assert any(each in fault for fault in found for each in word.split("|")), found
    assert faults_of("GET", "/healthz", 200, {"content-type": "application/json"}, json.dumps(GOOD).encode()) == []


def test_the_judge_goes_by_reasons_and_headers() -> None:
    """A reason that is not of the operation, or a 503 without `Retry-After`, is a fault."""
    problem = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "No.", "reason": "no_such_refund"}

    def found(reason: str, status: int, **headers: str) -> list[str]:
        body = json.dumps({**problem, "status": status, "reason": reason}).encode()
        kind = {"content-type": "application/problem+json", **headers}
        return faults_of("GET", "/v1/refunds/S01-1", status, kind, body)

    assert found("no_such_refund", 404) == []
    assert "no_such_subscriber" in "".join(found("no_such_subscriber", 404))
    assert found("store_timeout", 503, **{"retry-after": "5"}) == []
    assert found("store_timeout", 503) == ["there is no retry-after"]
    assert found(TOKEN[401][0], 401) == []
