"""`receiver token`, `--version` and the completion of shells."""

from __future__ import annotations

import re
import tomllib
from hashlib import sha256
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from receiver.commands import cli
from receiver.settings import check
from tests.commands.conftest import run_command
from tests.commands.test_cli import COMMANDS
from tests.kit.configuration import table


def test_the_table_admits_the_token(tmp_path: Path) -> None:
    """Standard output is TOML that the settings accept; the token is on standard error, and different each time."""
    made = run_command("token", "orders", "--scope", "read", "--scope", "refund", "--account", "us")
    assert made.code == 0
    token = made.err.rpartition(": ")[2].strip()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    settings = check({"accounts": [table("us")], **tomllib.loads(made.out)}, tmp_path)
    (admitted,) = settings.tokens
    assert (admitted.name, sorted(admitted.scopes), admitted.accounts) == ("orders", ["read", "refund"], ("us",))
    assert admitted.sha256 == sha256(token.encode()).hexdigest()
    assert token not in run_command("token", "orders").err


def test_a_token_file_is_for_its_owner_and_never_written_twice(tmp_path: Path) -> None:
    """The token is nowhere else. The second time, no table is printed, because its token would be lost."""
    file = tmp_path / "orders.token"
    made = run_command("token", "orders", "--token-file", str(file))
    token = file.read_text().strip()
    assert (made.code, file.stat().st_mode & 0o777) == (0, 0o600)
    assert token not in made.out + made.err
    assert tomllib.loads(made.out)["tokens"] == [
        {"name": "orders", "sha256": sha256(token.encode()).hexdigest(), "scopes": ["read"]}
    ]
    again = run_command("token", "orders", "--token-file", str(file))
    assert (again.code, again.out) == (2, "")
    assert "exists already" in again.err
    assert file.read_text().strip() == token


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["Orders!"], "name: "),
        (["orders", "--scope", "everything"], "scopes[0]: must be 'read', 'refund' or 'admin'"),
        (["orders", "--token-file", "/nowhere/token"], "/nowhere/token: cannot be written"),
    ],
)
def test_what_the_settings_would_refuse_makes_no_token(words: list[str], says: str) -> None:
    ran = run_command("token", *words)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err


def test_the_version_is_that_of_the_package() -> None:
    assert run_command("--version").out == f"amazon-pay-refund-receiver {version('amazon-pay-refund-receiver')}\n"


def test_the_package_has_a_script_of_its_own_name() -> None:
    """So `uvx` and `pipx run` find it; it is the same command."""
    scripts = {each.name: each.value for each in entry_points(group="console_scripts")}
    assert scripts["amazon-pay-refund-receiver"] == scripts["receiver"]


@pytest.mark.parametrize(
    ("typed", "place", "offered"),
    [
        ("receiver ", 1, {name.split()[0] for name in COMMANDS}),
        ("receiver delivery ", 2, {"list", "redrive"}),
        ("receiver doctor --of", 2, {"--offline"}),
    ],
)
def test_shells_complete_commands_and_options(typed: str, place: int, offered: set[str]) -> None:
    """Also the groups, which are loaded only when they are called."""
    environment = {"_RECEIVER_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(place)}
    result = CliRunner().invoke(cli.app, [], env=environment, prog_name="receiver")
    assert set(result.stdout.split()) == offered
