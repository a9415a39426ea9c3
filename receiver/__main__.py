"""Command. `python -m receiver` is `receiver`."""

from __future__ import annotations

from receiver.commands.cli import main

main()
