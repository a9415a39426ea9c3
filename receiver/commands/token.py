"""Command. `receiver token`: makes a token for the API, and prints the `[[tokens]]` table that admits it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from receiver.settings.sections import TokenSettings

app = typer.Typer()

BYTES = 32
"""Of randomness in a token."""


@app.command("token")
def token_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who will hold the token. It is what the log shows.")],
    scope: Annotated[
        list[str], typer.Option("--scope", help="read, refund or admin; can be repeated. No scope includes another.")
    ] = ["read"],  # noqa: B006 - typer copies it, and shows it in --help
    account: Annotated[
        list[str] | None,
        typer.Option(
            "--account",
            help="Only this account; can be repeated. Default: all accounts.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            help="Write the token to this new file, which only you can read, instead of to standard error.",
        ),
    ] = None,
) -> None:
    """Make a token for the API, the commands and the dashboard.

    The table for receiver.toml goes to standard output, the token itself to standard error or to --token-file:
    receiver token orders --token-file orders.token >> receiver.toml

    The settings contain only the token's SHA-256, so the token cannot be shown again. The service takes over
    new tokens on SIGHUP or at a restart.
    """
    import secrets

    from receiver.commands.client.options import ending

    with ending():
        token = secrets.token_urlsafe(BYTES)
        text = table(name, token, [each.lower() for each in scope], account or ())
        if token_file is not None:
            write_secret(token_file, token)
            typer.echo(f"The token is in {token_file}. Use it as RECEIVER_TOKEN_FILE={token_file}", err=True)
        else:
            typer.echo(f"Token, shown only once: {token}", err=True)
        typer.echo(f"\n{text}")


def table(name: str, token: str, scopes: Sequence[str], accounts: Sequence[str] = ()) -> str:
    """The `[[tokens]]` table that admits the token, as TOML. Raises `ConfigurationError` for a name or a scope that the
    settings would refuse."""
    checked = _checked(name, token, scopes, accounts)
    lines = [
        "[[tokens]]",
        f"name = {quoted(checked.name)}",
        f'sha256 = "{checked.sha256}"',
        f"scopes = {json.dumps(list(dict.fromkeys(scopes)))}",
        *([f"accounts = {json.dumps(list(accounts))}"] if accounts else []),
    ]
    return "\n".join(lines)


def _checked(name: str, token: str, scopes: Sequence[str], accounts: Sequence[str]) -> TokenSettings:
    from hashlib import sha256

    from pydantic import ValidationError

    from receiver.errors import ConfigurationError
    from receiver.settings.problems import sentences
    from receiver.settings.sections import TokenSettings

    tree = {"name": name, "sha256": sha256(token.encode()).hexdigest(), "scopes": scopes, "accounts": accounts or None}
    try:
        return TokenSettings.model_validate(tree)
    except ValidationError as error:
        raise ConfigurationError(sentences(error, TokenSettings)) from None


def quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a part of TOML's."""
    return json.dumps(text, ensure_ascii=False)


def write_secret(path: Path, secret: str) -> None:
    """Write a text to a new file that only its owner can read. Raises `ConfigurationError`: also if it exists."""
    from receiver.errors import ConfigurationError
    from receiver.store.embedded.files import private

    try:
        with open(path, "x", opener=private, encoding="utf-8") as file:
            file.write(f"{secret}\n")
    except FileExistsError:
        raise ConfigurationError([f"{path}: exists already, and is not overwritten."]) from None
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be written ({error.strerror})."]) from None
