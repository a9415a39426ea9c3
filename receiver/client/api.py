"""Edge: the web. One call of the service's HTTP API, with a bearer token, and its answer or problem."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from yarl import URL

from receiver.client.errors import ApiProblem, not_the_api
from receiver.errors import ConfigurationError
from receiver.exchange import Request, Response
from receiver.transport.addresses import is_loopback

TIMEOUT = 10.0
"""Seconds for an answer, in addition to those that the server was asked to wait."""
MOST_ANSWER = 8 * 1024 * 1024
"""A page of 200 refunds with the longest texts that the API allows is smaller than 2 MiB."""

TOKEN = re.compile(r"[!-~]{1,1024}")
URL_TEXT = re.compile(r"https?://[!-~]+", re.IGNORECASE)
OF_EVERY_PROBLEM = frozenset({"type", "title", "status", "detail", "reason", "requestId"})

T = TypeVar("T")


class _Refusal(msgspec.Struct, rename="camel"):
    amazon_request_id: str | None = msgspec.field(default=None, name="requestId")


class _Problem(msgspec.Struct, rename="camel"):
    detail: str
    reason: str
    http_request_id: str = msgspec.field(default="", name="requestId")
    amazon: _Refusal | None = None


Send = Callable[..., Awaitable[Response]]
"""`Transport.send`: one exchange. Raises `TransportError`."""


class Api:
    """The API at `base` (as `read_base` gave it), with a bearer token. `account` is empty for every account."""

    def __init__(self, send: Send, base: str, token: str, account: str = "") -> None:
        self._send, self._base, self._token, self.account = send, base, token, account
        self.met = False
        """Whether the service has ever answered a call without a problem."""

    async def call(
        self,
        method: str,
        path: str,
        *,
        wait: int = 0,
        body: Mapping[str, Any] | None = None,
        etag: str = "",
        idempotency_key: str = "",
    ) -> Response:
        """The answer, 2xx or 304. `path` is from `target`; `wait`: for how many seconds the server was asked to wait.

        Raises `ApiProblem` for any other answer, and `TransportError`.
        """
        headers = {"accept": "application/json, application/problem+json", "authorization": f"Bearer {self._token}"}
        if etag:
            headers["if-none-match"] = etag
        if idempotency_key:
            headers["idempotency-key"] = idempotency_key
        if body is not None:
            headers["content-type"] = "application/json"
        sent = b"" if body is None else msgspec.json.encode(body)
        request = Request(method, self._base + path, headers, sent)
        answer = await self._send(request, timeout=TIMEOUT + wait, max_body=MOST_ANSWER)
        if not (200 <= answer.status < 300 or answer.status == 304):
            raise _problem(answer)
        if answer.truncated:
            raise ApiProblem("The answer is too long.", status=502, reason="not_the_api")
        self.met = True
        return answer


def target(*path: str, **query: str | int) -> str:
    """`/v1/…` with the path's parts and the query, escaped. Empty values and zeros are omitted."""
    asked = urlencode({name: value for name, value in query.items() if value}, quote_via=quote, safe="")
    return "/v1/" + "/".join(quote(part, safe="") for part in path) + (f"?{asked}" if asked else "")


def decode(answer: Response, kind: type[T]) -> T:
    """The answer's JSON as a value of this type. Raises `ApiProblem` (`not_the_api`) for anything else."""
    return decode_body(answer.body, kind)


def decode_body(body: bytes, kind: type[T]) -> T:
    """The same of a body."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise not_the_api() from error


def convert(value: object, kind: type[T]) -> T:
    """A part of an answer as a value of this type. Raises `ApiProblem` (`not_the_api`)."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise not_the_api() from error


def read_base(url: str, *, insecure: bool, name: str = "url", allow: str = "insecure=True") -> str:
    """The address without a slash at its end. Raises `ConfigurationError`, with the names of the two settings.

    Plain http is for this machine only, unless `insecure`: anyone on the network could read and use the token.
    """
    try:
        # The same reading as the transport's, so that both see the same host in odd addresses.
        parsed = URL(url, encoded=True)
        scheme, host = parsed.scheme, parsed.raw_host or ""
        whole = not ("@" in parsed.raw_authority or "?" in url or "#" in url or "\\" in url)
    except ValueError:
        scheme, host, whole = "", "", False
    if not (host and whole and URL_TEXT.fullmatch(url)):
        problem = "is not a service address. Example: https://refunds.example (no user, ? or #)."
        raise ConfigurationError([f"{name}: {problem}"])
    if scheme != "https" and not insecure and not is_loopback(host):
        raise ConfigurationError(
            [
                f"{name}: plain http to {host} would expose the token to the network. "
                f"Use https, or {allow} if you trust the network."
            ]
        )
    return url.rstrip("/")


def read_token(text: str, origin: str) -> str:
    """The token in the text. Raises `ConfigurationError`, which names the origin and never the token."""
    token = text.strip()
    if not token:
        raise ConfigurationError([f"{origin}: is empty."])
    if not TOKEN.fullmatch(token):
        raise ConfigurationError([f"{origin}: a token is one line of at most 1024 visible ASCII characters."])
    return token


def _problem(answer: Response) -> ApiProblem:
    """The problem details (RFC 9457) as this service writes them. Other bodies are not shown: their origin is
    unknown."""
    retry_after = answer.headers.get("retry-after", "")
    seconds = int(retry_after) if re.fullmatch(r"[0-9]{1,6}", retry_after) else None
    if answer.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/problem+json":
        try:
            problem = msgspec.json.decode(answer.body, type=_Problem)
            members = msgspec.json.decode(answer.body, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return ApiProblem(
                problem.detail,
                status=answer.status,
                reason=problem.reason,
                http_request_id=problem.http_request_id,
                amazon_request_id=(problem.amazon and problem.amazon.amazon_request_id) or "",
                retry_after=seconds,
                more={name: value for name, value in members.items() if name not in OF_EVERY_PROBLEM},
            )
    if 300 <= answer.status < 400:
        text = "The service redirects, and redirects are not followed. Use the final address."
    else:
        text = "The answer is not from this service, but from a proxy or another server."
    return ApiProblem(text, status=answer.status, reason="not_the_api", retry_after=seconds)
