"""Command. `receiver openapi`: the description of the HTTP API, without a running service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer()


@app.command()
def openapi(
    events: Annotated[
        Path | None,
        typer.Option(
            "--events",
            metavar="DIR",
            file_okay=False,
            help="Instead write a JSON Schema for each type of event to this folder, as TYPE.json. The folder is made.",
        ),
    ] = None,
) -> None:
    """Print the OpenAPI 3.1 description of the HTTP API (JSON), as served at /openapi.json.

    For client generators, gateways and documentation: receiver openapi > openapi.json

    It also describes the webhooks that subscribers receive.
    """
    if events is None:
        from receiver.http.openapi import document

        typer.echo(_text(document()))
        return
    from receiver.commands.console import say
    from receiver.http.openapi.webhooks import event_schemas

    schemas = event_schemas()
    try:
        events.mkdir(parents=True, exist_ok=True)
        for type_, schema in schemas.items():
            (events / f"{type_}.json").write_text(f"{_text(schema)}\n", encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(
            f"{error.filename} cannot be written ({error.strerror}).", param_hint="--events"
        ) from error
    say([f"{len(schemas)} schemas written to {events}."])


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
