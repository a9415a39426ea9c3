"""Pure. How events look on the wire: the format of the subscriber decides.

cloudevents    one event, CloudEvents signed as Standard Webhooks asks    cloud_event.py
slack          one or several, blocks for an incoming webhook             slack.py
pagerduty      one, Events API v2                                         pagerduty.py
alertmanager   one or several, alerts of its API v2                       alertmanager.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from receiver.errors import TransportError
from receiver.exchange import Request
from receiver.outbox.events.event import Event
from receiver.outbox.events.operator_event import OperatorEvent
from receiver.outbox.formats import alertmanager, cloudevents, pagerduty, slack
from receiver.outbox.formats.cloudevents import LARGEST_BODY, render_body
from receiver.outbox.subscribers.formats import CLOUDEVENTS
from receiver.outbox.subscribers.subscriber import Subscriber

Renderer = Callable[[Sequence[Event], Subscriber, int], Request]
RENDERERS: Mapping[str, Renderer] = {
    "cloudevents": cloudevents.render,
    "slack": slack.render,
    "pagerduty": pagerduty.render,
    "alertmanager": alertmanager.render,
}


def render(events: Sequence[Event], subscriber: Subscriber, now: int) -> Request:
    """The request that tells the subscriber of these events, at `now` (ms by the machine's own clock).

    `events` are at least one, and at most `most_in_one(subscriber)`. The request may hold credentials.
    Raises `TransportError`: `no_live_secret` where it cannot be signed, `no_credential` where the routing key is
    missing, `unknown_format` for a format of a later version.
    """
    renderer = RENDERERS.get(subscriber.format)
    if renderer is None:
        raise TransportError("This version does not know the subscriber's format.", reason="unknown_format")
    return renderer(events, subscriber, now)


def render_operator(events: Sequence[OperatorEvent], subscriber: Subscriber, now: int) -> Request:
    """The request that tells the subscriber of operator events; formats that know incidents are not told of any.

    Raises `TransportError` as `render` does.
    """
    if subscriber.format == "slack":
        return slack.render_operator(events, subscriber)
    if subscriber.format == CLOUDEVENTS:
        return cloudevents.render_operator(events, subscriber, now)
    raise TransportError("The subscriber's format has no form for operator events.", reason="unknown_format")


__all__ = ["LARGEST_BODY", "RENDERERS", "render", "render_body", "render_operator"]
