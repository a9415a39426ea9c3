"""Edge: files. The version of the installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGE = "amazon-pay-refund-receiver"


def package_version() -> str:
    """The installed version, such as `0.1.0`; empty if the package is not installed."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return ""
