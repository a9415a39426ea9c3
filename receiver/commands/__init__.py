"""Command. One module for each group of commands; `commands/cli.py` binds them together."""
