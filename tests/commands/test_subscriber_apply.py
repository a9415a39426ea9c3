"""`receiver subscriber apply` against a real service."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commands.conftest import Run

FILE = """\
[[subscribers]]
name = "finance"
account = "us"
url = "https://finance.example/hooks"
types = "amazonpay.refund.declined, amazonpay.refund.stuck"
rate = 5

[[subscribers]]
name = "chat"
account = "eu"
format = "slack"
url_file = "hook"
start = "beginning"
"""


def write(folder: Path, text: str) -> str:
    file = folder / "subscribers.toml"
    file.write_text(text)
    (folder / "hook").write_text("https://hooks.slack.com/services/T0/B0/hunter2\n")
    return str(file)


def test_the_tables_are_made_so(admin: Run, tmp_path: Path) -> None:
    """A dry run shows what would be done. Then it is done once, and a new secret is shown once."""
    file = write(tmp_path, FILE)
    apply = ("subscriber", "apply", file)
    planned = admin(*apply, "--dry-run")
    assert (planned.code, planned.err) == (0, "")
    assert planned.out == "finance (us): would be created\nchat (eu): would be created\n"
    assert "no subscribers yet" in admin("subscriber", "list").err
    done = admin(*apply)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == "finance (us): created"
    assert "(shown only once): whsec_" in done.out.splitlines()[1]
    assert (done.out.count("whsec_"), "hunter2" in done.out) == (1, False)
    assert admin(*apply).out == "finance (us): unchanged\nchat (eu): unchanged\n"
    write(tmp_path, FILE.replace("rate = 5", "concurrency = 3").replace('start = "beginning"', "backfill = true"))
    planned = admin(*apply, "--dry-run")
    assert planned.out == (
        "finance (us): would be changed\n  rate: 5.0 → none\n  concurrency: none → 3\n"
        "chat (eu): would be changed\n  backfill: false → true\n"
    )
    outcomes = [json.loads(line)["outcome"] for line in admin(*apply, "--json").out.splitlines()]
    assert outcomes == ["changed", "changed"]


def test_nothing_is_changed_if_the_service_refuses_a_table(admin: Run, tmp_path: Path) -> None:
    """Each problem is printed with its subscriber. A table without an account gets that of --account."""
    text = FILE.replace("https://finance.example", "http://10.0.0.1").replace('account = "eu"\n', "")
    ran = admin("subscriber", "apply", write(tmp_path, text))
    assert (ran.code, ran.out) == (1, "")
    assert "finance: Refused. [400 bad_subscriber]" in ran.err or "finance: url: must begin with https" in ran.err
    assert "chat: Specify `?account=`" in ran.err
    assert "Nothing was changed." in ran.err
    assert "no subscribers yet" in admin("subscriber", "list").err


def test_a_file_that_cannot_be_read_is_wrong_usage(admin: Run, tmp_path: Path) -> None:
    """Every problem at once, without a secret; nothing is asked."""
    for text, problem in (
        ("", "has no table [[subscribers]]"),
        ("[[subscriber]]\nname = 'x'", "has no table [[subscribers]]"),
        ("[[subscribers", "is not TOML"),
        (FILE.replace('"hook"', '"nowhere"'), "subscribers[1].url_file: names a file that cannot be read"),
        (FILE.replace("rate = 5", "rat = 5"), "did you mean rate?"),
        (FILE.replace("rate = 5", 'secret = "hunter2"'), "subscribers[0].secret: does not begin with whsec_"),
        (FILE + FILE, "subscribers: finance is there twice"),
    ):
        ran = admin("subscriber", "apply", write(tmp_path, text))
        assert (ran.code, ran.out, problem in ran.err.replace("\n", " ")) == (2, "", True), ran
        assert "hunter2" not in ran.err
    assert admin("subscriber", "apply", str(tmp_path / "none.toml")).code == 2
