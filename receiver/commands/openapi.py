"""Command. `receiver openapi`: the description of the HTTP API, without a running service."""

from __future__ import annotations

import json

import typer


def register(app: typer.Typer) -> None:
    """Make it a command of `app`."""
    app.command()(openapi)


def openapi() -> None:
    """Print the OpenAPI 3.1 description of the HTTP API (JSON), as served at /openapi.json.

    For client generators, gateways and documentation: receiver openapi > openapi.json
    """
    from receiver.http.openapi import document

    typer.echo(json.dumps(document(), indent=2, ensure_ascii=False))
