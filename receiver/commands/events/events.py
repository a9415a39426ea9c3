"""Command. `receiver events`: follows the feed of a running service, and forwards it to a program under development."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated

import typer

from receiver.client.answers import EventPage
from receiver.client.api import Api
from receiver.client.feed import EventFollower, FeedEvent
from receiver.client.retrying import RetryingCaller
from receiver.commands.client.messages import notifier
from receiver.commands.client.options import ServiceCall, api_command
from receiver.commands.console import say
from receiver.commands.events.forward import Forward, read_target, signing_key
from receiver.commands.refund.views import ChangePrinter
from receiver.commands.setup import transport
from receiver.ledger.lifecycle import EventType

app = typer.Typer(no_args_is_help=True)

Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="TYPE,…",
        help=f"Only these types: {', '.join(each.value.rpartition('.')[2] for each in EventType)}, "
        "dispute.action_required, mismatch. Default: all of refunds.",
    ),
]
Reasons = Annotated[
    list[str] | None,
    typer.Option(
        "--reason", metavar="REASON,…", help="Only events with these reason codes, for example AmazonRejected."
    ),
]
After = Annotated[
    str,
    typer.Option(
        "--after",
        metavar="CURSOR",
        help="Start after this cursor. `beginning`: at the oldest kept event. Default: now.",
        show_default=False,
    ),
]


Use = Callable[[AsyncIterator[FeedEvent]], Awaitable[None]]


@api_command(app)
def tail(call: ServiceCall, types: Types = None, reasons: Reasons = None, after: After = "") -> None:
    """Print events as they happen, until Ctrl-C. Then print the cursor to continue from. --json prints CloudEvents.

    It continues after an outage of the service and misses nothing. If events were lost because the store was trimmed or
    emptied meanwhile, it says so.
    """
    screen = ChangePrinter(call.json)

    async def show(events: AsyncIterator[FeedEvent]) -> None:
        async for each in events:
            screen.show_event(each.raw)

    _follow(call, types, reasons, after, "Following events. Press Ctrl-C to stop.", show)


@api_command(app)
def forward(
    call: ServiceCall,
    to: Annotated[str, typer.Option("--to", metavar="URL", help="URL that events are posted to.")],
    secret: Annotated[
        str,
        typer.Option(
            "--secret",
            envvar="RECEIVER_FORWARD_SECRET",
            metavar="whsec_…",
            help="Signing secret. Other users of this machine can see it, so use one for development only. "
            "Default: a new one, which is printed.",
            show_default=False,
        ),
    ] = "",
    types: Types = None,
    reasons: Reasons = None,
    after: After = "",
) -> None:
    """Post each event to a URL, signed like a subscriber's webhooks, to develop one on your machine.

    Prints the answer to each event. An event that is not accepted is sent three times, then skipped. Runs do not
    remember anything: for production, add a subscriber.
    """
    address, key = read_target(to), signing_key(secret)

    async def send(events: AsyncIterator[FeedEvent]) -> None:
        async with transport() as web:
            forward = Forward(web, address, key, call.json)
            async for each in events:
                await forward.post(each.raw)

    _follow(call, types, reasons, after, f"Forwarding events to {address}. Press Ctrl-C to stop.", send)


def _follow(
    call: ServiceCall,
    types: Sequence[str] | None,
    reasons: Sequence[str] | None,
    after: str,
    greeting: str,
    use: Use,
) -> None:
    last, unsaid = after, [greeting]

    async def announce(page: EventPage) -> None:
        """Says the greeting after the service's first answer, and what was lost."""
        if unsaid:
            say([unsaid.pop()])
        if page.reset:
            say([page.reset.detail or "Events may be lost. Continuing with the oldest kept event."])

    async def run(api: Api) -> None:
        nonlocal last
        steadily = RetryingCaller(api, notifier(say))
        follow = EventFollower(api, steadily, types=types or (), reasons=reasons or (), after=after)
        try:
            await use(follow.events(announce))
        finally:
            last = follow.after

    try:
        call.run(run)
    finally:
        if last != after:
            say([f"To continue from here: --after {last}"])
