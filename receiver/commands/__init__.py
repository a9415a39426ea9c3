"""Command. One module for each group of commands; `cli.py` binds them together."""
