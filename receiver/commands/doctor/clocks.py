"""Pure. Judges the difference between two clocks."""

from __future__ import annotations

from receiver.commands.doctor.finding import Finding, fail, ok, warn

NOTICEABLE = 5.0
"""Seconds; NTP keeps machines within some milliseconds."""
DATED = (
    "Amazon refuses requests dated in its future. The service therefore dates them by Amazon's clock, but the "
    "first request to each host may have to be repeated"
)
FIX = "Set this machine's clock by NTP (timedatectl set-ntp true; for a container, on the host)."


def judge_clock(
    check: str, ahead: float, most: float, whose: str, subject: str = "", *, most_ahead: float = NOTICEABLE
) -> Finding:
    """This clock is `ahead` seconds ahead of another. Above `most`, notifications seem to come from the future (503).

    Amazon refuses requests dated in its future: `most_ahead` is how far ahead is harmless.
    """
    side = "ahead of" if ahead > 0 else "behind"
    found = f"this machine's clock is {abs(ahead):.0f} s {side} {whose}"
    if abs(ahead) > most:
        effect = "notifications look as if from the future and get 503" if ahead < 0 else DATED
        return fail(check, "clock_wrong", f"{found}: {effect}", FIX, subject)
    if ahead > most_ahead or -ahead > NOTICEABLE:
        effect = f": {DATED}" if most_ahead < NOTICEABLE and ahead > 0 else ""
        return warn(check, "clock_off", found + effect, FIX, subject)
    return ok(check, f"within {NOTICEABLE:.0f} s of {whose} clock", subject)
