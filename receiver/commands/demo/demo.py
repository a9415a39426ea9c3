"""Command. `receiver demo`: runs everything on one machine, shows it, and checks the outcome."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from receiver.commands.demo.folder import temporary_folder
from receiver.commands.demo.stage import FAILS_FIRST, OUTCOME_DELAY, SHORTENED, Stage, stage
from receiver.commands.demo.story import DECLINED, EXPECTED, FORGERIES, Expectation, StoryRefund, judge, missing, story
from receiver.commands.signals import at_signal

T = TypeVar("T")

INTERRUPTED = 130
PATIENCE = 25.0
"""Seconds after which anything not observed counts as missing."""
REFUNDS_PER_SECOND = 20


async def run(*, refunds: int, keep: bool, as_json: bool) -> int:
    """Run it. Returns the exit code: 0 only if everything expected was observed, and nothing else."""
    console = Console(stderr=as_json, quiet=as_json, highlight=False)
    stopped = at_signal() if keep else None
    show = Show(console)
    async with temporary_folder() as data_dir, stage(data_dir, show.pushed) as scene:
        show.opening(scene, refunds)
        report = await until_stopped(perform(scene, story(refunds), show), stopped)
        if report is None:
            return INTERRUPTED
        show.closing(report)
        if as_json:
            print(json.dumps(report, indent=2))  # noqa: T201 - the command's result
        if stopped is None:
            show.ending()
        else:
            show.keeping(scene)
            await stopped.wait()
    return 0 if report["ok"] else 1


async def until_stopped(work: Coroutine[Any, Any, T], stopped: asyncio.Event | None) -> T | None:
    """The result of the work; None if a signal came first."""
    if stopped is None:
        return await work
    tasks = asyncio.ensure_future(work), asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def perform(scene: Stage, parts: list[StoryRefund], show: Show) -> dict[str, Any]:
    """Starts the refunds, waits until everything was observed or `PATIENCE` is over, and judges the outcome."""
    began = time.monotonic()
    expectations: dict[str, Expectation] = {}
    with show.progress(len(parts)) as observed:
        for part in parts:
            expectations[start(scene, part)] = replace(EXPECTED[part.outcome], amount=f"{part.amount} {part.currency}")
            await asyncio.sleep(1 / REFUNDS_PER_SECOND)
        refusals = {kind: (await scene.simulator.forge(kind)).status for kind in FORGERIES}
        async for states in states_until(scene, began + PATIENCE):
            right = [each for each, want in expectations.items() if states.get(each) == (want.state, want.reason)]
            observed(len(right))
            if len(right) < len(parts) or any(missing(seen, expectations) for seen in scene.subscribers):
                continue
            if not await still_owed(scene):
                break
        await scene.simulator.idle()
        refunds = await scene.refunds()
    states = {each: state_of(refund) for each, refund in refunds.items()}
    problems = judge(expectations, states, scene.subscribers, refusals)
    problems += tricks_unseen(scene, refunds)
    problems += await still_owed(scene)
    still_open = (await scene.summary())["openDeclines"]
    return summary(scene, refunds, refusals, still_open, problems, time.monotonic() - began)


def start(scene: Stage, part: StoryRefund) -> str:
    """Starts one refund at the simulator and sets up the fault of its final notification."""
    refund_id = scene.simulator.start_refund(part.amount, part.currency, part.outcome)
    state = EXPECTED[part.outcome].state
    if part.trick == "drop":
        scene.simulator.fault_injection.add("drop", refund_id=refund_id, state=state)
    elif part.trick == "duplicate":
        scene.simulator.fault_injection.add("duplicate", refund_id=refund_id, state=state)
    elif part.trick == "reorder":
        scene.simulator.fault_injection.add(
            "delay", refund_id=refund_id, state="RefundInitiated", seconds=OUTCOME_DELAY + 1
        )
    return refund_id


async def states_until(scene: Stage, deadline: float) -> AsyncIterator[dict[str, tuple[str, str]]]:
    """The states of all refunds in the API, repeatedly until the deadline."""
    while time.monotonic() < deadline:
        yield {each: state_of(refund) for each, refund in (await scene.refunds()).items()}
        await scene.service.store.of("demo").changed(0.2)


def state_of(refund: dict[str, Any]) -> tuple[str, str]:
    """(state, reason code) of a refund's JSON."""
    return refund["statusDetails"]["state"], refund["statusDetails"]["reasonCode"] or ""


def tricks_unseen(scene: Stage, refunds: dict[str, dict[str, Any]]) -> list[str]:
    """The faults of the demo that did not happen."""
    problems = []
    lost = {each.about for each in scene.simulator.posted if each.verdict == "dropped"}
    if not lost or any(refunds.get(each, {}).get("source") != "poll" for each in lost):
        problems.append("A refund with a lost notification was not found by polling.")
    if not any(each.kind == "repeated" and each.status == 200 for each in scene.simulator.posted):
        problems.append("No repeated notification was acknowledged.")
    if any(seen.wants_all and seen.failed_first != FAILS_FIRST for seen in scene.subscribers):
        problems.append("The subscriber that should fail at first did not.")
    return problems


async def still_owed(scene: Stage) -> list[str]:
    """Queue entries left behind: delivered events must be gone, or they would be sent again."""
    sizes = await scene.service.store.of("demo").gauges.measure()
    left = [name for name, size in sizes.items() if size and name.startswith(("hinted", "waiting:", "dead:"))]
    return [f"Entries are left in {name}." for name in left]


def summary(
    scene: Stage,
    refunds: dict[str, dict[str, Any]],
    refusals: dict[str, int | None],
    still_open: dict[str, Any],
    problems: list[str],
    seconds: float,
) -> dict[str, Any]:
    posted = scene.simulator.posted
    genuine = [each for each in posted if not each.kind.startswith("forged")]
    reasons = Counter(reason for state, reason in map(state_of, refunds.values()) if state == "Declined")
    return {
        "ok": not problems,
        "seconds": round(seconds, 1),
        "refunds": dict(Counter(state for state, _ in map(state_of, refunds.values()))),
        "declined": dict(reasons),
        "openDeclines": still_open,
        "inConflict": sum(refund["conflict"] for refund in refunds.values()),
        "notifications": {
            "accepted": sum(each.status == 200 for each in genuine),
            "sentTwice": sum(each.kind == "repeated" for each in genuine),
            "lost": sum(each.verdict == "dropped" for each in genuine),
            "forgedAndRefused": sum(status is not None and 400 <= status < 500 for status in refusals.values()),
        },
        "foundByPolling": sum(refund["source"] == "poll" and refund["final"] for refund in refunds.values()),
        "deliveries": {
            seen.name: {"accepted": len(seen.events), "failedFirst": seen.failed_first} for seen in scene.subscribers
        },
        "shortened": {"outcomeDelay": f"{OUTCOME_DELAY:g}s", **SHORTENED},
        "problems": problems,
    }


class Show:
    """The output for people."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def opening(self, scene: Stage, refunds: int) -> None:
        """Print the addresses of everything that runs."""
        lines = (
            f"[bold]receiver[/]              {scene.url}, with an embedded {scene.store}",
            f"Amazon Pay simulator  {scene.simulator.base_url}",
            "",
            f"Starting {refunds} refunds. Shortened for the demo: an outcome takes {OUTCOME_DELAY:g} s",
            f"(Amazon: 30 s to hours), polls come after {', '.join(SHORTENED['poll'])}",
            "(normally 1m, 5m, …), and there is no throttle.",
            "",
        )
        self._console.print("\n".join(lines), soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar of the refunds that have ended as expected."""
        columns = (TextColumn("final refunds"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task("refunds", total=total)
            yield lambda count: bar.update(task, completed=count)

    def pushed(self, subscriber: str, event: dict[str, Any]) -> None:
        """A subscriber has accepted an event: show the declines."""
        if event["type"] != DECLINED or subscriber != "finance":
            return
        data = event["data"]
        amount, status = data["refundAmount"], data["statusDetails"]
        self._say(
            f"[red]declined[/] {escape(data['refundId'])} {amount['amount']:>7} {amount['currencyCode']} "
            f"[bold]{escape(status['reasonCode'] or '?'):<17}[/] pushed to {subscriber}",
            soft_wrap=True,
        )

    def _say(self, line: str, **how: Any) -> None:
        """Ignores a closed output: it must not make the subscriber that prints fail."""
        with contextlib.suppress(BrokenPipeError, SystemExit):
            self._console.print(line, **how)

    def closing(self, report: dict[str, Any]) -> None:
        """The summary, and what went wrong."""
        table = Table("what", "how many", title=f"\nAfter {report['seconds']} s", title_justify="left", box=None)
        notes = report["notifications"]
        rows = {
            **{f"refunds {state}": count for state, count in sorted(report["refunds"].items())},
            **{f"… declined, {reason}": count for reason, count in sorted(report["declined"].items())},
            "… with two final states (conflict)": report["inConflict"],
            "notifications acknowledged": notes["accepted"],
            "… sent twice, counted once": notes["sentTwice"],
            "… lost, found by polling": notes["lost"],
            "forged notifications refused": notes["forgedAndRefused"],
            **{
                f"events accepted by {name}"
                + (f" (after {each['failedFirst']} failures)" if each["failedFirst"] else ""): each["accepted"]
                for name, each in report["deliveries"].items()
            },
        }
        for what, count in rows.items():
            table.add_row(what, str(count))
        self._console.print(table)
        still_open = report["openDeclines"]
        if still_open["count"]:
            sums = ", ".join(f"{each['amount']} {each['currencyCode']}" for each in still_open["amounts"])
            self._console.print(
                f"\nStill open: {still_open['count']} declined refunds, {sums}. These buyers have not been paid.",
                soft_wrap=True,
            )
        for problem in report["problems"]:
            self._console.print(f"[red]not as expected:[/] {escape(problem)}")
        if report["ok"]:
            self._console.print(
                "\n[green]Every expected state and delivery was observed, each event once per subscriber.[/]"
            )

    def ending(self) -> None:
        """Print what to try after a demo that ends."""
        self._console.print(
            "Next: README.md, “Connect your Amazon Pay account”. To look around: receiver demo --keep", soft_wrap=True
        )

    def keeping(self, scene: Stage) -> None:
        """Print what to try next."""
        say = self._console.print
        say("\nEverything keeps running until you press Ctrl-C. In another terminal:", soft_wrap=True)
        say(f"  export RECEIVER_URL={scene.url} RECEIVER_TOKEN={scene.token}", soft_wrap=True)
        say(f"  open {scene.url}/ in a browser and sign in with that token", soft_wrap=True)
        say(f"  {sys.argv[0]} refund list --state Declined", soft_wrap=True)
        say(f'  curl -H "Authorization: Bearer $RECEIVER_TOKEN" {scene.url}/v1/refunds', soft_wrap=True)
        say(
            f'  curl -d \'{{"amount": "9.50", "currencyCode": "USD", "outcome": "AmazonRejected"}}\' '
            f"-H 'Content-Type: application/json' {scene.simulator.base_url}/simulator/refunds",
            soft_wrap=True,
        )
