"""Pure. What the distance between two clocks means."""

from __future__ import annotations

from receiver.commands.doctor.finding import Finding, fail, ok, warn

NOTICEABLE = 5.0
"""Seconds; NTP keeps machines within some milliseconds."""
DATED = (
    "Amazon refuses what is dated in its future. Requests are dated by Amazon's own clock for that reason, but the "
    "first one to each host may have to be repeated"
)
FIX = "Let NTP set this machine's clock (timedatectl set-ntp true, or the host's clock if this is a container)."


def judge_clock(
    check: str, ahead: float, most: float, whose: str, subject: str = "", *, most_ahead: float = NOTICEABLE
) -> Finding:
    """This clock is `ahead` seconds of another. From `most` on, notifications are taken for the future's (503).

    What is dated by a clock ahead of Amazon's is refused by Amazon: `most_ahead` is how far ahead hurts nobody.
    """
    side = "ahead of" if ahead > 0 else "behind"
    found = f"this machine's clock is {abs(ahead):.0f} s {side} {whose}"
    if abs(ahead) > most:
        effect = "notifications get 503 as from the future" if ahead < 0 else DATED
        return fail(check, "clock_wrong", f"{found}: {effect}", FIX, subject)
    if ahead > most_ahead or -ahead > NOTICEABLE:
        effect = f": {DATED}" if most_ahead < NOTICEABLE and ahead > 0 else ""
        return warn(check, "clock_off", found + effect, FIX, subject)
    return ok(check, f"within {NOTICEABLE:.0f} s of {whose} clock", subject)
