"""Pure. Who did what: the acts of people and programs that the audit trail keeps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who asks for something: a token and, behind a proxy that signs people in, a person."""

    token: str = ""
    """The token's name in the settings; empty for what the service does by itself."""
    user: str = ""
    """The person, as the proxy names them (`http.user_header`); empty if none is named."""
    http_request_id: str = ""
    """The `X-Request-Id` of the request, which is also in the log."""

    def __str__(self) -> str:
        return f"{self.token} ({self.user})" if self.user else self.token


THE_SERVICE = Actor()
"""The actor of what the service does by itself, which is not audited."""


class Action(StrEnum):
    """The acts that are audited. The words are public and stable."""

    REFUND_CREATE = "refund.create"
    REFUND_RETRY = "refund.retry"
    REFUND_REFRESH = "refund.refresh"
    REFUND_CLOSE = "refund.close"
    REFUND_REOPEN = "refund.reopen"
    REQUEST_REPEAT = "refund_request.repeat"
    REQUEST_SETTLE = "refund_request.settle"
    JOB_START = "refund_job.start"
    JOB_RESUME = "refund_job.resume"
    JOB_CANCEL = "refund_job.cancel"
    SUBSCRIBER_ADD = "subscriber.add"
    SUBSCRIBER_CHANGE = "subscriber.change"
    SUBSCRIBER_REMOVE = "subscriber.remove"
    SUBSCRIBER_ROTATE = "subscriber.rotate"
    SUBSCRIBER_PAUSE = "subscriber.pause"
    SUBSCRIBER_RESUME = "subscriber.resume"
    SUBSCRIBER_TEST = "subscriber.test"
    SUBSCRIBER_REDRIVE = "subscriber.redrive"


class Outcome(StrEnum):
    """How an act ended."""

    ACCEPTED = "accepted"
    """It is saved and will be done; the request, the refund or the delivery shows how it ends."""
    DONE = "done"
    ISSUED = "issued"
    """A request is settled: Amazon made the refund."""
    NOT_ISSUED = "not_issued"
    """A request is settled: Amazon made no refund."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One act. It names what the act concerns; it never holds a secret, or the body of a request."""

    action: str
    """A word of `Action`, or of a later version."""
    actor: Actor
    refund_id: str = ""
    refund_request_id: str = ""
    charge_id: str = ""
    subscriber: str = ""
    job: str = ""
    """A job that reissues many refunds."""
    event_id: str = ""
    outcome: str = Outcome.DONE
    """A word of `Outcome`, or of a later version; of REFUND_CLOSE: how the case was closed."""
    fields: tuple[str, ...] = ()
    """The names of the fields that changed; never their values."""
    count: int = 0
    """How many events or refunds were selected."""
    act: str = ""
    """A random word, so that the act is written once even if its script runs again."""


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """The filters of a list of entries, combined with AND; an empty one matches everything.

    Times are ms: from `since`, before `until`. `actor` is a token or a person, `refund` a refund or a refund request.
    """

    since: int = 0
    until: int = 0
    refund: str = ""
    actor: str = ""

    def matches(self, entry: AuditEntry, ids: frozenset[str]) -> bool:
        """Whether the entry is by that actor, and concerns one of these refunds and refund requests (empty: any)."""
        by = not self.actor or self.actor in (entry.actor.token, entry.actor.user)
        return by and (not ids or entry.refund_id in ids or entry.refund_request_id in ids)
