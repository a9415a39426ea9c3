"""Edge: files. The table `[accounts.reconcile]`: how an account's refunds are compared with Amazon's reports."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from receiver.amazon.account import DailyReconciliation
from receiver.ledger.timestamps import milliseconds
from receiver.settings.values import Section, Span


class ReconcileSettings(Section):
    """When an account is compared with Amazon's reports, and how."""

    settled_within: Span = Field(
        default=timedelta(days=7),
        ge=timedelta(hours=1),
        le=timedelta(days=365),
        description="how long after it was Refunded a refund may be missing in the settlements, 1h to 365d.",
    )
    daily: str | None = Field(
        default=None,
        pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$",
        description='when the reports are fetched once a day, such as "04:00". Default: only on demand.',
    )
    time_zone: str = Field(default="UTC", description="the time zone of `daily`, such as Europe/Berlin.")
    since: Span = Field(
        default=timedelta(days=7),
        ge=timedelta(days=1),
        le=timedelta(days=90),
        description="how far back the reports of the daily comparison go, 1d to 90d.",
    )

    @field_validator("time_zone")
    @classmethod
    def _zone_is_known(cls, name: str) -> str:
        if name != "UTC":
            try:
                ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError(
                    "is no time zone that this machine knows. Write one such as Europe/Berlin, or UTC. A system "
                    "without time zones needs its package tzdata."
                ) from None
        return name

    def build_daily(self) -> DailyReconciliation | None:
        """The daily comparison; None if there is none."""
        if self.daily is None:
            return None
        hours, minutes = map(int, self.daily.split(":"))
        return DailyReconciliation(hours * 60 + minutes, self.time_zone, milliseconds(self.since))
