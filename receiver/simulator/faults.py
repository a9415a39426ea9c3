"""Pure. Amazon's refusals: an HTTP status, a `reasonCode` and a message, in the JSON format of the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class Fault(Exception):
    """The request is refused as Amazon would refuse it.

    `status` and `reason_code` follow Amazon's page "error handling". Where no source gives a status for a code, 422
    stands for the state of a charge or an amount, 401 for a signature. `word` is the simulator's own, more specific
    reason. It is sent in the header `x-amz-pay-simulator-reason`, so that a developer sees exactly what was wrong.
    `page` is the HTML of an intermediary, sent instead of Amazon's body.
    """

    def __init__(self, status: int, reason_code: str, message: str, word: str = "", *, page: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.reason_code = reason_code
        self.message = message
        self.word = word or reason_code
        self.page = page

    def body(self) -> dict[str, str]:
        return {"reasonCode": self.reason_code, "message": self.message}


def known(objects: Mapping[str, T], kind: str, object_id: str) -> T:
    """The object with this id. Raises `Fault` 404: there is none in this environment."""
    if object_id not in objects:
        raise Fault(404, "ResourceNotFound", f"The {kind} '{object_id}' does not exist.")
    return objects[object_id]


def invalid_value(name: str, why: str) -> Fault:
    """400: a parameter has a value that Amazon does not accept."""
    return Fault(400, "InvalidParameterValue", f"The value provided for '{name}' is invalid: {why}")
