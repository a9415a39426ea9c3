"""Pure. What the distance between two clocks means."""

from __future__ import annotations

from receiver.checks.finding import Finding, fail, ok, warn

NOTICEABLE = 5.0
"""Seconds; NTP keeps machines within some milliseconds."""
MEND = "Let NTP set this machine's clock (timedatectl set-ntp true, or the host's clock if this is a container)."


def judge_clock(check: str, ahead: float, most: float, whose: str, subject: str = "") -> Finding:
    """This clock is `ahead` seconds of another. From `most` on, notifications are taken for the future's (503), or
    Amazon refuses what we sign."""
    side = "ahead of" if ahead > 0 else "behind"
    found = f"this machine's clock is {abs(ahead):.0f} s {side} {whose}"
    if abs(ahead) > most:
        effect = "notifications get 503 as from the future" if ahead < 0 else "Amazon refuses what we sign then"
        return fail(check, "clock_wrong", f"{found}: {effect}", MEND, subject)
    if abs(ahead) > NOTICEABLE:
        return warn(check, "clock_off", found, MEND, subject)
    return ok(check, f"within {NOTICEABLE:.0f} s of {whose} clock", subject)
