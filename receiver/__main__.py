"""Command. `python -m receiver` is `receiver`."""

from __future__ import annotations

from receiver.cli import main

main()
