"""Command."""

import typer

app = typer.Typer()
