"""What an answer means."""

from __future__ import annotations

from email.utils import formatdate

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import TransportError
from receiver.exchange import Response
from receiver.outbox.retries import (
    DAY,
    HOUR,
    LIFETIME,
    LONGEST_THROTTLE,
    MINUTE,
    SCHEDULE,
    SECOND,
    Dead,
    Delivered,
    DeliveryAttempts,
    Gone,
    Retry,
    Verdict,
    deadline,
    error_text,
    excerpt,
    judge,
    record,
    retry_after,
)
from tests.outbox.examples import NOW, any_text

chances = st.floats(0, 1, exclude_max=True)
odd_values = (
    any_text
    | st.from_regex(r"\s?[+-]?[0-9]{1,30}(\.[0-9]+)?\s?", fullmatch=True)
    | st.integers(1, 5_000).map(lambda digits: "9" * digits)
    | st.floats(-1e10, 2.5e11).map(lambda at: formatdate(at, usegmt=True))
)
names = st.sampled_from(["retry-after", "webhook-delivery", "content-type"])
answers = st.builds(
    Response,
    st.integers(100, 599) | st.sampled_from([200, 410, 429, 503, 0, -1, 10**9]),
    st.dictionaries(names, odd_values | st.just("abort-message")),
    st.binary(max_size=500),
    st.booleans(),
) | st.builds(
    lambda reason: TransportError(reason=reason), st.sampled_from(["timeout", "forbidden_address", "network"])
)
failures = answers.filter(lambda answer: not isinstance(answer, Response) or not 200 <= answer.status < 300)
histories = st.builds(
    DeliveryAttempts,
    count=st.integers(0, 20),
    first_at=st.just(0) | st.integers(NOW - 10 * DAY, NOW),
    paused_ms=st.integers(0, 10 * DAY),
)


def answer(status: int, **headers: str) -> Response:
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()})


def test_the_schedule_has_twelve_attempts_in_75_hours() -> None:
    """5 s, 30 s, 2 m, 10 m, 30 m, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h: 75 h 42 m 35 s."""
    assert sum(SCHEDULE) == 75 * HOUR + 42 * MINUTE + 35 * SECOND == 272_555_000
    attempts, now, tried, nominal = DeliveryAttempts(), NOW, 0, 0
    while True:
        verdict = judge(answer(500), attempts, now, 0.5)
        attempts = record(answer(500), attempts, verdict, now)
        tried += 1
        if not isinstance(verdict, Retry):
            break
        nominal += verdict.at - now
        now = verdict.at
    assert verdict == Dead("exhausted")
    assert (tried, attempts.count, attempts.first_at, attempts.last_at) == (12, 12, NOW, now)
    short = sum(wait for wait in SCHEDULE if wait < 2 * HOUR)
    assert nominal == sum(SCHEDULE) - short // 4


@given(st.integers(0, len(SCHEDULE) - 1), chances)
def test_waits_stay_within_their_bounds(step: int, random: float) -> None:
    """From half to the whole of a wait below two hours, ±20 % from there on."""
    verdict = judge(answer(500), DeliveryAttempts(count=step, first_at=NOW), NOW, random)
    assert isinstance(verdict, Retry)
    assert verdict.counts
    wait, nominal = verdict.at - NOW, SCHEDULE[step]
    tenths = (5, 10) if nominal < 2 * HOUR else (8, 12)
    assert tenths[0] * nominal <= 10 * wait < tenths[1] * nominal


def test_chance_spreads_the_waits_over_the_whole_range() -> None:
    """The ends of the range are reached: 2.5 to 5 s at first, 19.2 to 28.8 h at last."""
    ends = [
        judge(answer(500), DeliveryAttempts(count=step, first_at=NOW), NOW, random)
        for step in (0, 10)
        for random in (0.0, 0.999999999)
    ]
    assert [each.at - NOW for each in ends if isinstance(each, Retry)] == [2_500, 4_999, 69_120_000, 103_679_999]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_delivery(status: int) -> None:
    """Whatever the headers, the number of attempts or the time."""
    late = DeliveryAttempts(count=99, first_at=NOW - 30 * DAY)
    assert judge(answer(status, webhook_delivery="abort-message", retry_after="5"), late, NOW, 0.5) == Delivered()


@pytest.mark.parametrize("status", [100, 199, 300, 301, 302, 307, 308, 400, 401, 404, 408, 500, 502, 504, 599, 0])
def test_everything_else_is_tried_again(status: int) -> None:
    """Redirects, refusals and failures take the next step; a `Retry-After` on them is not obeyed."""
    assert judge(answer(status, retry_after="7"), DeliveryAttempts(), NOW, 0) == Retry(NOW + 2_500, counts=True)


@pytest.mark.parametrize("reason", ["timeout", "refused", "forbidden_address", "network", "tls"])
def test_no_answer_is_tried_again(reason: str) -> None:
    """An address that the guard refuses is a failure like others: it may be fixed later."""
    assert judge(TransportError(reason=reason), DeliveryAttempts(), NOW, 0) == Retry(NOW + 2_500, counts=True)


def test_410_is_the_subscribers_goodbye() -> None:
    """Standard Webhooks and CloudEvents: the endpoint wants nothing more. Even after the last attempt."""
    assert judge(answer(410, webhook_delivery="abort-message"), DeliveryAttempts(), NOW, 0.5) == Gone()
    assert judge(answer(410), DeliveryAttempts(count=99, first_at=1), NOW, 0.5) == Gone()


@pytest.mark.parametrize("value", ["abort-message", " Abort-Message ", "x, abort-message"])
def test_a_subscriber_can_stop_the_retries_of_one_event(value: str) -> None:
    """The header `webhook-delivery: abort-message`, on any failure."""
    for status in (400, 429, 500, 503):
        assert judge(answer(status, webhook_delivery=value, retry_after="5"), DeliveryAttempts(), NOW, 0.5) == Dead(
            "aborted"
        )
    assert isinstance(judge(answer(500, webhook_delivery="disable"), DeliveryAttempts(), NOW, 0.5), Retry)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("30", 30_000),
        (" 30 ", 30_000),
        ("0", 1_000),
        ("00000000000000000030", 30_000),
        ("21600", 21_600_000),
        ("21601", 21_600_000),
        pytest.param("9" * 5_000, 21_600_000, id="more digits than int() reads"),
        ("Sun, 14 Jul 2019 16:01:00 GMT", 59_750),
        ("Sunday, 14-Jul-19 16:01:00 GMT", 59_750),
        ("Sun Jul 14 16:01:00 2019", 59_750),
        ("Sun, 14 Jul 2019 15:00:00 GMT", 1_000),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 21_600_000),
    ],
)
def test_retry_after_is_obeyed_within_a_second_and_six_hours(status: int, value: str, wait: int) -> None:
    """Seconds, and the three forms of an HTTP-date; it costs no attempt, not even after the last step."""
    for count in (0, 5, 11, 99):
        attempts = DeliveryAttempts(count=count, first_at=NOW - DAY)
        verdict = judge(answer(status, retry_after=value), attempts, NOW, 0.5)
        assert verdict == Retry(NOW + wait, counts=False)
        assert record(answer(status), attempts, verdict, NOW).count == count


@pytest.mark.parametrize("value", ["", "-5", "+5", "1.5", "5s", "soon", "٣", "Sun, 99 Jul 2019 16:01:00 GMT", "1e3"])
def test_an_unreadable_retry_after_is_none(value: str) -> None:
    """Then a 429 or 503 is a failure like others."""
    assert judge(answer(429, retry_after=value), DeliveryAttempts(), NOW, 0) == Retry(NOW + 2_500, counts=True)
    assert judge(answer(503), DeliveryAttempts(), NOW, 0) == Retry(NOW + 2_500, counts=True)


def test_seven_days_after_the_first_attempt_it_is_dead() -> None:
    """A wait that would end at or after the seventh day is not begun, whatever asks for it."""
    attempts = DeliveryAttempts(count=3, first_at=NOW)
    end = NOW + LIFETIME
    throttled = answer(429, retry_after="3600")
    assert judge(throttled, attempts, end - HOUR - 1, 0.5) == Retry(end - 1, counts=False)
    assert judge(throttled, attempts, end - HOUR, 0.5) == Dead("expired")
    assert judge(answer(500), attempts, end, 0.5) == Dead("expired")
    assert judge(answer(200), attempts, end + DAY, 0.5) == Delivered()


def test_paused_time_does_not_count() -> None:
    """Only pauses since the first attempt: the growth of the subscriber's sum."""
    attempts = record(answer(500), DeliveryAttempts(), Retry(NOW), NOW, paused_ms=2 * DAY)
    assert attempts.paused_ms == 2 * DAY
    assert deadline(attempts, NOW, 2 * DAY) == NOW + LIFETIME
    assert deadline(attempts, NOW, 5 * DAY) == NOW + LIFETIME + 3 * DAY
    later = NOW + 8 * DAY
    assert judge(answer(500), attempts, later, 0.5, paused_ms=2 * DAY) == Dead("expired")
    assert isinstance(judge(answer(500), attempts, later, 0.5, paused_ms=5 * DAY), Retry)
    assert record(answer(500), attempts, Retry(later), later, paused_ms=5 * DAY).paused_ms == 2 * DAY


def test_endless_throttling_ends_after_seven_days() -> None:
    """A subscriber that always answers 429 uses up no attempts, but the event still becomes dead in time."""
    attempts, now = DeliveryAttempts(), NOW
    for _ in range(1_000):
        verdict = judge(answer(429, retry_after="21600"), attempts, now, 0.5)
        attempts = record(answer(429), attempts, verdict, now)
        if not isinstance(verdict, Retry):
            break
        now = verdict.at
    assert verdict == Dead("expired")
    assert NOW + LIFETIME - LONGEST_THROTTLE <= now < NOW + LIFETIME
    assert attempts.count == 1


@given(answers, histories, chances, st.integers(0, 20 * DAY))
def test_every_answer_has_a_verdict(
    reply: Response | TransportError, attempts: DeliveryAttempts, random: float, paused: int
) -> None:
    """For all answers and histories: a retry is in the future, before the deadline, and counts unless it was
    throttled."""
    verdict = judge(reply, attempts, NOW, random, paused_ms=paused)
    success = isinstance(reply, Response) and 200 <= reply.status < 300
    assert (verdict == Delivered()) is success
    after = record(reply, attempts, verdict, NOW, paused_ms=paused)
    if isinstance(verdict, Retry):
        assert NOW + 1_000 <= verdict.at < deadline(attempts, NOW, paused)
        assert verdict.at - NOW <= 1.2 * 24 * HOUR
        assert after.count == attempts.count + verdict.counts
        throttled = isinstance(reply, Response) and reply.status in (429, 503) and "retry-after" in reply.headers
        assert verdict.counts or throttled
    assert after.first_at == (attempts.first_at or NOW)
    assert after.last_error.isprintable()
    assert (after.last_error == "") is success
    assert msgspec.json.decode(msgspec.json.encode(after), type=DeliveryAttempts) == after


@given(st.lists(failures, max_size=60), chances)
def test_no_run_of_failures_has_more_than_twelve_counted_attempts(
    replies: list[Response | TransportError], random: float
) -> None:
    """Whatever the answers, the schedule is walked once, in at most seven days."""
    attempts, now = DeliveryAttempts(), NOW
    verdict: Verdict = Retry(NOW)
    for reply in replies:
        verdict = judge(reply, attempts, now, random)
        attempts = record(reply, attempts, verdict, now)
        if not isinstance(verdict, Retry):
            break
        now = verdict.at
    assert attempts.count <= 12
    assert now < NOW + LIFETIME


@given(odd_values, st.integers(0, 4_000_000_000_000))
def test_retry_after_is_total_and_bounded(value: str, now: int) -> None:
    """Any header value gives a wait within the bounds, or none."""
    wait = retry_after(value, now)
    assert wait is None or 1_000 <= wait <= 21_600_000


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (answer(500), "HTTP 500"),
        (answer(302), "HTTP 302: redirects are not followed"),
        (TransportError(reason="timeout"), "timeout"),
        (TransportError(), "network"),
        (TransportError("10.0.0.7 is private", reason="forbidden_address"), "forbidden address: 10.0.0.7 is private"),
        (TransportError("a\x1b[31m" + "b" * 300, reason="tls"), "tls: a [31m" + "b" * 188 + "…"),
    ],
)
def test_an_error_is_told_in_words(reply: Response | TransportError, text: str) -> None:
    """Short and printable, for a list that people read."""
    assert error_text(reply) == text


def test_an_excerpt_is_one_printable_line() -> None:
    """Colours, line breaks, direction overrides and broken UTF-8 of a hostile answer do no harm."""
    assert excerpt(b"<h1>\r\n\tOops\x1b[31m \xe2\x80\xae\xff</h1>") == "<h1> Oops [31m \ufffd</h1>"
    assert excerpt(b"") == ""
    assert excerpt(b"a" * 10_000) == "a" * 199 + "…"


@given(st.binary(max_size=6_000))
def test_any_body_has_an_excerpt(body: bytes) -> None:
    """At most 200 printable characters, and UTF-8."""
    text = excerpt(body)
    assert len(text) <= 200
    assert text.isprintable()
    assert text.encode().decode() == text


def test_what_was_tried_is_kept_small() -> None:
    """Nothing that is empty is stored; the whole record of one failure."""
    failed = Response(500, {}, b"Internal\nError")
    assert msgspec.json.encode(DeliveryAttempts()) == b"{}"
    assert msgspec.json.encode(record(failed, DeliveryAttempts(), Retry(NOW + 5_000), NOW)) == (
        b'{"count":1,"first_at":1563120000250,"last_at":1563120000250,"last_status":500,'
        b'"last_error":"HTTP 500","excerpt":"Internal Error"}'
    )
