"""Command. `receiver openapi`: the description of the HTTP API, without a running service."""

from __future__ import annotations

import json

import typer


def register(app: typer.Typer) -> None:
    """Take its place among the commands."""
    app.command()(openapi)


def openapi() -> None:
    """Print the description of the HTTP API (OpenAPI 3.1, JSON): what a running service has at /openapi.json.

    For client generators, gateways and documentation: receiver openapi > openapi.json
    """
    from receiver.http.openapi import document

    typer.echo(json.dumps(document(), indent=2, ensure_ascii=False))
