"""`receiver subscriber` against a real service."""

from __future__ import annotations

import json
import os
import pty
from pathlib import Path

from tests.commands.conftest import Run
from tests.commands.kit import Process, Server
from tests.http.kit import ADMIN
from tests.store.makers import SECRET

URL = "https://finance.example/hooks"
ADD = ("subscriber", "add", "finance", URL, "--account", "us")


def test_the_secret_that_was_made_is_shown_once(admin: Run) -> None:
    """On its own line, whole; afterwards there is only its fingerprint."""
    ran = admin(*ADD)
    assert (ran.code, ran.err) == (0, "")
    secret = ran.out.splitlines()[-1]
    assert secret.startswith("whsec_")
    assert len(secret) == len("whsec_") + 44
    for later in (("list",), ("show", "finance"), ("list", "--json"), ("show", "finance", "--json")):
        shown = admin("subscriber", *later)
        assert shown.code == 0
        assert "finance" in shown.out
        assert "whsec_" not in shown.out + shown.err


def test_a_given_secret_is_not_shown(admin: Run, tmp_path: Path) -> None:
    """It is read from a file, and only sent to the service."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    ran = admin(*ADD, "--secret-file", str(file))
    assert ran.code == 0, ran
    assert "whsec_" not in ran.out + ran.err


def test_types_and_reasons_by_their_short_names(admin: Run) -> None:
    """Repeated, or separated by commas; `all` is every type."""
    more = ("--types", "declined,stuck", "--types", "conflict", "--reasons", "AmazonRejected,ProcessingFailure")
    added = json.loads(admin(*ADD, *more, "--json").out)
    assert added["types"] == [f"amazonpay.refund.{word}" for word in ("declined", "stuck", "conflict")]
    assert added["reasons"] == ["AmazonRejected", "ProcessingFailure"]
    assert added["secret"].startswith("whsec_")
    everything = admin("subscriber", "add", "audit", URL, "--account", "eu", "--types", "all", "--json")
    assert json.loads(everything.out)["types"] == ["*"]
    listed = admin("subscriber", "list").out
    assert "declined, stuck" in listed
    assert max(map(len, listed.splitlines())) <= 80


def test_every_problem_is_told(admin: Run) -> None:
    """A line each, with exit code 1."""
    ran = admin("subscriber", "add", "finance", "http://10.0.0.1/x", "--account", "us", "--types", "refused")
    assert (ran.code, ran.out) == (1, "")
    assert "[400 bad_subscriber]" in ran.err
    assert "url: must begin with https://" in ran.err
    assert "types: 'refused' is not an event type" in ran.err


def test_a_name_is_taken_once(admin: Run) -> None:
    """Adding the same subscriber again changes nothing; a different one is refused. With several accounts, one must be
    named."""
    assert admin(*ADD).code == 0
    again = admin(*ADD)
    assert (again.code, "whsec_" in again.out) == (0, False)
    assert "exists already" in again.err
    assert admin(*ADD, "--rate", "3").code == 1
    ran = admin("subscriber", "add", "finance", URL)
    assert ran.code == 1
    assert "Give --account NAME." in ran.err


def test_a_reader_may_not(run: Run) -> None:
    """The scope is missing."""
    for args in (("list",), ("show", "finance"), ("remove", "finance", "--yes"), ADD[1:]):
        ran = run("subscriber", *args)
        assert ran.code == 1
        assert "scope_missing" in ran.err


def test_remove_needs_a_yes(admin: Run) -> None:
    """Without a terminal to confirm it, it is not done; with --yes it is."""
    admin(*ADD)
    unasked = admin("subscriber", "remove", "finance")
    assert unasked.code == 2
    assert "--yes" in unasked.err
    assert admin("subscriber", "show", "finance").code == 0
    removed = admin("subscriber", "remove", "finance", "--yes")
    assert (removed.code, removed.err) == (0, "")
    assert admin("subscriber", "show", "finance").code == 1
    assert admin("subscriber", "remove", "finance", "--yes").code == 1
    assert "no subscribers yet" in admin("subscriber", "list").err


def test_remove_asks_on_a_terminal(server: Server, admin: Run) -> None:
    """Any answer but yes leaves it; the question goes to standard error."""
    admin(*ADD)
    for answer, code in ((b"n\n", 1), (b"\x04", 1), (b"y\n", 0)):
        keyboard, terminal = pty.openpty()
        environment = {"RECEIVER_URL": server.url, "RECEIVER_TOKEN": ADMIN}
        process = Process("subscriber", "remove", "finance", stdin=terminal, **environment)
        try:
            os.write(keyboard, answer)
            assert process.wait() == code, process.err.rest()
            assert "Remove finance of account us" in "\n".join(process.err.rest())
            assert bool(process.out.rest()) is (code == 0)
        finally:
            process.end()
            os.close(keyboard)
            os.close(terminal)
    assert admin("subscriber", "show", "finance").code == 1


def test_a_name_that_is_none_never_becomes_a_path(admin: Run) -> None:
    """It is wrong usage."""
    for name in ("..", "a/b", "", "Finance"):
        assert admin("subscriber", "show", name).code == 2
        assert admin("subscriber", "remove", name, "--yes").code == 2


def test_other_formats(admin: Run, tmp_path: Path) -> None:
    """What is a secret comes from files and is not shown; PagerDuty's address is known."""
    hook, key, both = tmp_path / "hook", tmp_path / "key", tmp_path / "both"
    hook.write_text("https://hooks.slack.com/services/T0/B0/hunter2\n")
    key.write_text("R" * 32)
    both.write_text("Bearer hunter2")
    add = ("subscriber", "add", "--account", "us")
    chat = admin(*add, "chat", "--format", "slack", "--address-file", str(hook))
    paged = admin(*add, "oncall", "--format", "pagerduty", "--routing-key-file", str(key))
    url = "https://alertmanager.example"
    alerts = admin(*add, "alerts", url, "--format", "alertmanager", "--authorization-file", str(both))
    for ran, shown in (
        (chat, "https://hooks.slack.com/…"),
        (paged, "https://events.pagerduty.com/v2/enqueue"),
        (alerts, url),
    ):
        assert (ran.code, ran.err) == (0, "")
        assert shown in ran.out
        assert "Fingerprint" in ran.out
        assert "hunter2" not in ran.out
        assert "RRRR" not in ran.out
        assert "signing secret" not in ran.out
    refused = admin(*add, "no", URL, "--format", "telex")
    assert (refused.code, refused.out) == (1, "")
    assert "format: 'telex' is not a format" in refused.err
    assert admin(*add, "no", URL, "--address-file", str(hook)).code == 2


def test_changing_and_rotating(admin: Run, tmp_path: Path) -> None:
    """What is given changes; a new secret is shown once, a given one never."""
    admin(*ADD)
    more = ("--types", "declined,receiver.*", "--min-amount", "100.00 USD", "--rate", "5", "--to", f"{URL}/new")
    ran = admin("subscriber", "change", "finance", *more, "--json")
    changed = json.loads(ran.out)
    assert (changed["types"], changed["minAmount"], changed["rate"], changed["url"]) == (
        ["amazonpay.refund.declined", "receiver.*"],
        ["100.00 USD"],
        5.0,
        f"{URL}/new",
    )
    shown = admin("subscriber", "change", "finance", "--default", "types,min-amount")
    assert (shown.code, "declined" in shown.out, "100.00" in shown.out) == (0, True, False)
    ran = admin("subscriber", "rotate", "finance")
    assert ran.out.splitlines()[-1].startswith("whsec_")
    file = tmp_path / "secret"
    file.write_text(SECRET)
    ran = admin("subscriber", "rotate", "finance", "--secret-file", str(file), "--old-valid-for", "0s")
    assert (ran.code, "whsec_" in ran.out, ran.out.count("Fingerprint")) == (0, False, 1)
    ran = admin("subscriber", "change", "finance", "--rate", "-1")
    assert (ran.code, "rate: is not a number of messages a second" in ran.err) == (1, True)


def test_another_host_needs_the_secret_again(admin: Run, tmp_path: Path) -> None:
    """From a file, from standard input, or made and shown once; without it nothing is changed."""
    admin(*ADD)
    change = ("subscriber", "change", "finance", "--to")
    other = "https://other.example/hooks"
    ran = admin(*change, other)
    assert (ran.code, ran.out) == (1, "")
    assert "[400 credential_needed]" in ran.err
    assert "`secret`" in ran.err
    assert URL in admin("subscriber", "show", "finance").out
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    ran = admin(*change, other, "--secret-file", str(file))
    assert (ran.code, other in ran.out, "whsec_" in ran.out, ran.out.count("Fingerprint")) == (0, True, False, 1)
    ran = admin(*change, URL, "--secret-file", "-", input=SECRET)
    assert (ran.code, URL in ran.out, "whsec_" in ran.out) == (0, True, False)
    ran = admin(*change, other, "--secret-file", "-", input="")
    assert (ran.code, "--secret-file: - does not hold one line of text." in ran.err) == (2, True)
    ran = admin(*change, other, "--new-secret")
    assert (ran.code, ran.out.splitlines()[-1].startswith("whsec_")) == (0, True)
    assert admin(*change, URL, "--new-secret", "--secret-file", str(file)).code == 2


def test_another_host_needs_the_credential_of_other_formats_again(admin: Run, tmp_path: Path) -> None:
    """PagerDuty's key, an Alertmanager's header; the address of a chat may stand in a file."""
    file = tmp_path / "credential"
    add = ("subscriber", "add", "--account", "us")
    file.write_text("R" * 32)
    admin(*add, "oncall", "--format", "pagerduty", "--routing-key-file", str(file))
    eu = "https://events.eu.pagerduty.com/v2/enqueue"
    refused = admin("subscriber", "change", "oncall", "--to", eu)
    assert (refused.code, "`routing_key`" in refused.err) == (1, True)
    ran = admin("subscriber", "change", "oncall", "--to", eu, "--routing-key-file", str(file))
    assert (ran.code, eu in ran.out, "RRRR" in ran.out) == (0, True, False)
    file.write_text("Bearer hunter2")
    admin(*add, "alerts", "https://am.example", "--format", "alertmanager", "--authorization-file", str(file))
    move = ("subscriber", "change", "alerts", "--to", "https://other.example")
    assert "`authorization`" in admin(*move).err
    assert json.loads(admin(*move, "--authorization-file", str(file), "--json").out)["url"] == "https://other.example"
    ran = admin(*move[:-1], "https://third.example", "--default", "authorization", "--json")
    assert json.loads(ran.out)["credential"] is None
    file.write_text("https://hooks.slack.com/services/T0/B0/hunter2\n")
    admin(*add, "chat", "https://chat.example/hook", "--format", "slack")
    ran = admin("subscriber", "change", "chat", "--address-file", str(file))
    assert (ran.code, "https://hooks.slack.com/…" in ran.out, "hunter2" in ran.out) == (0, True, False)
    assert admin("subscriber", "change", "chat", "--to", URL, "--address-file", str(file)).code == 2


def test_what_is_owed_and_sent_again(admin: Run) -> None:
    """Nothing is owed here, and only what was asked for is done."""
    admin(*ADD, "--from", "beginning")
    shown = admin("subscriber", "show", "finance").out
    assert "Waiting" in shown
    assert "Delivered" in shown
    for state in ("dead", "waiting"):
        ran = admin("delivery", "list", "finance", "--state", state)
        assert (ran.code, ran.out, ran.err) == (0, "", f"receiver: There are no {state} events.\n")
    assert json.loads(admin("delivery", "list", "finance", "--json").out)["deliveries"] == []
    assert admin("delivery", "redrive", "finance").code == 2
    assert admin("delivery", "redrive", "finance", "--all").out == "0 will be sent again.\n"
    ran = admin("delivery", "redrive", "finance", "1-1", "--dry-run")
    assert (ran.code, ran.out) == (0, "0 would be sent again.\n")
    assert admin("delivery", "redrive", "finance", "1-1").err == "receiver: Not found: 1-1.\n"
    ran = admin("delivery", "list", "nobody")
    assert (ran.code, "no_such_subscriber" in ran.err) == (1, True)


def test_a_subscriber_needs_an_address_and_a_span_its_unit(run: Run) -> None:
    """The command checks this itself, and shows an example of the format's address."""
    for words, says in (
        (("add", "chat", "--format", "Slack"), "https://hooks.slack.com/services/"),
        (("add", "shop"), "https://finance.example/hooks"),
        (("rotate", "shop", "--old-valid-for", "24"), "24 has no unit"),
    ):
        ran = run("subscriber", *words)
        assert (ran.code, ran.out, says in ran.err) == (2, "", True), ran.err
