"""Edge: files. The table `[accounts.reconcile]`: how an account's refunds are compared with Amazon's reports."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from receiver.settings.values import Section, Span


class ReconcileSettings(Section):
    """The comparison."""

    settled_within: Span = Field(
        default=timedelta(days=7),
        ge=timedelta(hours=1),
        le=timedelta(days=365),
        description="how long after it was Refunded a refund may be missing in the settlements, 1h to 365d.",
    )
