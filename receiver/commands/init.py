"""Command. `receiver init`: writes the settings of a first installation, from options or questions."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from receiver.commands.token import quoted, table, write_secret
from receiver.errors import ConfigurationError

app = typer.Typer()

AMAZON_PAY: Final = "arn:aws:sns:{}:291180941288:*"
"""The topics of Amazon Pay's AWS account."""
AWS_REGIONS: Final = {"na": "us-east-1", "eu": "eu-west-1", "jp": "us-west-2"}
"""Region of Amazon Pay → the AWS region of its topics."""
PREFIXES: Final = {"na": "us", "eu": "eu", "jp": "jp"}
"""Region of Amazon Pay → how the name of an account begins."""
QUESTIONS: Final = {
    "merchant_id": "Merchant ID (Seller Central: Settings, Account Info)",
    "region": "Region: na, eu or jp",
    "public_key_id": "Public Key ID (Integration Central)",
    "environment": "Environment: sandbox or live",
    "private_key_file": "File with the private key of that public key",
    "name": "Name of the account; it is part of URLs and cannot be changed later",
}
"""Setting of the account → what is asked. In this order: later defaults follow from earlier answers."""
SCOPES: Final = ("read", "refund", "admin")


@dataclass(frozen=True, slots=True)
class Place:
    """The files that are written."""

    config: Path

    @property
    def folder(self) -> Path:
        """Relative paths in the settings count from here."""
        return self.config.absolute().parent

    @property
    def token(self) -> Path:
        """The file of the first token, for the person who installs the service."""
        return self.config.with_name("receiver.token")

    @property
    def secret(self) -> Path:
        """The webhook's signing secret."""
        return self.config.with_name("webhook.secret")


@app.command("init")
def init_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new settings file.")] = Path("receiver.toml"),
    merchant_id: Annotated[str, typer.Option("--merchant-id", help=QUESTIONS["merchant_id"])] = "",
    region: Annotated[str, typer.Option("--region", help="na, eu or jp.")] = "",
    public_key_id: Annotated[str, typer.Option("--public-key-id", help=QUESTIONS["public_key_id"])] = "",
    environment: Annotated[
        str, typer.Option("--environment", help="sandbox or live. Default: by the prefix of the public key id.")
    ] = "",
    private_key_file: Annotated[
        str,
        typer.Option(
            "--private-key-file",
            help="PEM file with the private key. Relative to the folder of FILE. Default: amazon-pay.pem.",
        ),
    ] = "",
    name: Annotated[
        str, typer.Option("--name", help="Name of the account, such as us-sandbox. It cannot be changed later.")
    ] = "",
    redis_url: Annotated[
        str, typer.Option("--redis-url", help="Your own Redis or Valkey. Default: an embedded one.")
    ] = "",
    webhook: Annotated[
        str, typer.Option("--webhook", help="URL that gets declines. Its secret is made and written to a file.")
    ] = "",
) -> None:
    """Write the settings of a first installation: an account, a token for yourself, and optionally a webhook.

    Asks for what is not given, if it runs on a terminal. The token is written to receiver.token beside the settings,
    which only you can read. Nothing is ever overwritten, and nothing is written unless the settings are complete and
    correct.
    """
    from receiver.commands.client.options import ending

    given = {
        "merchant_id": merchant_id,
        "region": region,
        "public_key_id": public_key_id,
        "environment": environment,
        "private_key_file": private_key_file,
        "name": name,
    }
    with ending():
        place = Place(file)
        _refuse_existing(place, webhook)
        asks = sys.stdin is not None and sys.stdin.isatty()
        account = complete(place, given, redis_url, webhook, asks=asks)
        _write(place, account, redis_url, webhook)
        typer.echo(_next_steps(place, account["name"], webhook))


def _refuse_existing(place: Place, webhook: str) -> None:
    wanted = (place.config, place.token, *([place.secret] if webhook else []))
    if there := [path for path in wanted if path.exists() or path.is_symlink()]:
        raise ConfigurationError([f"{path}: exists already, and is not overwritten." for path in there])
    if not place.folder.is_dir():
        raise ConfigurationError([f"{place.folder}: is not a folder. Create it first."])


def complete(place: Place, given: Mapping[str, str], redis_url: str, webhook: str, *, asks: bool) -> dict[str, str]:
    """The settings of the account, all of them checked. What is missing or wrong is asked for, if `asks`.

    Raises `ConfigurationError` with every problem; also for what no question is about.
    """
    account = {key: _spelled(key, value) for key, value in given.items() if value}
    questions = [key for key in QUESTIONS if key not in account]
    while True:
        for key in questions:
            default = _default(key, account)
            answer = typer.prompt(QUESTIONS[key], default=default) if asks else default or ""
            account[key] = _spelled(key, answer)
        problems = _problems(place, account, redis_url, webhook)
        if not problems:
            return account
        questions = [key for key in QUESTIONS if any(each.startswith(f"accounts[0].{key}:") for each in problems)]
        if not asks or not questions:
            raise ConfigurationError([_as_option(each) for each in problems])
        for each in problems:
            typer.echo(each.removeprefix("accounts[0]."), err=True)
        for key in questions:
            del account[key]


def _spelled(key: str, value: str) -> str:
    """The value. Words that the settings know in any letter case are in lower case: the name and the topic follow from
    them."""
    return value.lower() if key in ("region", "environment") else value


def _default(key: str, account: Mapping[str, str]) -> str | None:
    from receiver.amazon.calls import key_environment

    if key == "environment":
        return key_environment(account.get("public_key_id", ""))
    if key == "name" and account.get("region") in PREFIXES and account.get("environment"):
        return f"{PREFIXES[account['region']]}-{account['environment']}"
    return "amazon-pay.pem" if key == "private_key_file" else None


def _as_option(problem: str) -> str:
    """`--merchant-id: …` for `accounts[0].merchant_id: …`."""
    key, colon, text = problem.removeprefix("accounts[0].").partition(":")
    if key == "subscribers[0].url":
        return f"--webhook{colon}{text}"
    return f"--{key.replace('_', '-').replace('.', '-')}{colon}{text}" if key in (*QUESTIONS, "redis.url") else problem


def _problems(place: Place, account: Mapping[str, str], redis_url: str, webhook: str) -> list[str]:
    """What is wrong with the settings."""
    from receiver.settings import check

    tree: dict[str, Any] = {"accounts": [{key: value for key, value in account.items() if value}]}
    tree["accounts"][0]["topic_arns"] = [_topic(account)]
    if redis_url:
        tree["redis"] = {"url": redis_url}
    if webhook:
        tree["subscribers"] = [{"name": "webhook", "url": webhook, "secret": new_secret()}]
    try:
        check(tree, place.folder)
    except ConfigurationError as error:
        return list(error.problems)
    return []


def _topic(account: Mapping[str, str]) -> str:
    return AMAZON_PAY.format(AWS_REGIONS.get(account.get("region", ""), AWS_REGIONS["na"]))


def new_secret() -> str:
    """A signing secret of Standard Webhooks."""
    from secrets import token_bytes

    from receiver.outbox.subscribers.secrets import format_secret

    return format_secret(token_bytes(32))


def _write(place: Place, account: Mapping[str, str], redis_url: str, webhook: str) -> None:
    """The secrets first: the settings name them. Raises `ConfigurationError`; then nothing is left behind."""
    import secrets

    token, made = secrets.token_urlsafe(32), []
    files = {place.token: token, **({place.secret: new_secret()} if webhook else {})}
    try:
        for path, secret in files.items():
            write_secret(path, secret)
            made.append(path)
        write_secret(place.config, text(account, table("me", token, SCOPES), redis_url, webhook, place))
    except ConfigurationError:
        for path in made:
            path.unlink(missing_ok=True)
        raise
    if not redis_url:
        place.config.chmod(0o644)


def text(account: Mapping[str, str], token: str, redis_url: str, webhook: str, place: Place) -> str:
    """The settings file, as TOML. `token` is the table of the token."""
    parts = [
        "# Made by `receiver init`. Relative paths count from this file's folder. Secrets are in separate files.\n"
        "# After a change: receiver doctor --config FILE, then SIGHUP the service. Its log names what needs a restart."
    ]
    if redis_url:
        parts.append(f"[redis]\nurl = {quoted(redis_url)}")
    lines = [f"{key} = {quoted(account[key])}" for key in ("name", *(each for each in QUESTIONS if each != "name"))]
    topic = "# After the first notification, narrow this to its exact topic: ipn.answered in the log has it."
    parts.append("\n".join(["[[accounts]]", *lines, topic, f"topic_arns = [{quoted(_topic(account))}]"]))
    parts.append(
        f"# For yourself: the commands, the API and the dashboard. The token is in {place.token.name}.\n{token}"
    )
    if webhook:
        lines = ['name = "webhook"', f"url = {quoted(webhook)}", f"secret_file = {quoted(place.secret.name)}"]
        parts.append("\n".join(["[[subscribers]]", *lines]))
    return "\n\n".join(parts)


def _next_steps(place: Place, name: str, webhook: str) -> str:
    wrote = [str(place.config), f"{place.token} (your token)", *([str(place.secret)] if webhook else [])]
    return "\n".join(
        (
            f"Wrote {', '.join(wrote)}.",
            "",
            "Next:",
            f"  receiver doctor --config {place.config}",
            f"  receiver serve --config {place.config}",
            f"  export RECEIVER_TOKEN_FILE={place.token}",
            "",
            f"In Seller Central, enter https://<your host>/ipn/{name} as the address for notifications.",
        )
    )
