"""`receiver verify` as a user runs it: lines on standard output, and the exit code for scripts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.outside import sample
from tests.kit.processes import Command, Desk, desk
from tests.kit.sns import NOW, REFUND_ID, TOPIC, SnsSigner, notice, timestamp


@pytest.fixture
async def place() -> AsyncIterator[Desk]:
    """Where commands are started."""
    async with desk() as found:
        yield found


@pytest.fixture(scope="module")
def signer() -> SnsSigner:
    """A good certificate."""
    return SnsSigner()


def written(place: Desk, name: str, value: object) -> Path:
    """A file of the desk with this JSON."""
    path = place.folder / name
    path.write_text(json.dumps(value), "utf-8")
    return path


def verdicts(command: Command) -> dict[str, tuple[str, str | None, str | None]]:
    """Verdict, reason and refund id by file name; each line is one JSON object."""
    lines = [json.loads(line) for line in command.said.splitlines()]
    assert all(set(line) == {"file", "verdict", "reason", "refund_id"} for line in lines)
    return {Path(line["file"]).name: (line["verdict"], line["reason"], line["refund_id"]) for line in lines}


async def test_accepted_files(place: Desk, signer: SnsSigner) -> None:
    """Bare with `--cert`, and together with the certificate; exit code 0 and a line for each, in order."""
    (place.folder / "sns.pem").write_bytes(signer.pem)
    bare = written(place, "bare.json", signer.envelope())
    both = written(place, "both.json", {"message": signer.envelope(version=2), "cert_pem": signer.pem.decode()})
    other = written(place, "other.json", signer.envelope(notice(ObjectType="CHARGE", ObjectId="S01-1-1-C1")))
    with_time = ("--at", "message", "--topic", TOPIC, "--cert", "sns.pem")
    command = await place.run("verify", *with_time, bare, both, other)
    assert (command.process.returncode, command.complaint) == (0, "")
    assert list(verdicts(command).items()) == [
        ("bare.json", ("accepted", None, REFUND_ID)),
        ("both.json", ("accepted", None, REFUND_ID)),
        ("other.json", ("accepted", None, None)),
    ]
    alone = await place.run("verify", "--at", timestamp(NOW), "--topic", "arn:aws:sns:us-east-1:291180941288:*", both)
    assert (alone.process.returncode, len(verdicts(alone))) == (0, 1)


async def test_refused_files(place: Desk, signer: SnsSigner) -> None:
    """One refused file makes the exit code 1, and every file has its line, with the reason that the log would have."""
    pem = signer.pem.decode()
    good = written(place, "good.json", {"message": signer.envelope(), "cert_pem": pem})
    changed = written(
        place, "changed.json", {"message": signer.envelope() | {"Message": notice()[:-1] + " }"}, "cert_pem": pem}
    )
    bare = written(place, "bare.json", signer.envelope())
    elsewhere = written(place, "elsewhere.json", signer.envelope(topic_arn="arn:aws:sns:us-east-1:123456789012:mine"))
    (place.folder / "no.json").write_text("no JSON")
    arguments = ("verify", "--at", "message", "--topic", TOPIC)
    command = await place.run(*arguments, good, changed, bare, elsewhere, "no.json", "missing.json")
    assert (command.process.returncode, command.complaint) == (1, "")
    found = verdicts(command)
    assert found["good.json"] == ("accepted", None, REFUND_ID)
    assert {name: reason for name, (verdict, reason, _) in found.items() if verdict == "refused"} == {
        "changed.json": "bad_signature",
        "bare.json": "certificate_missing",
        "elsewhere.json": "wrong_topic",
        "no.json": "not_json",
        "missing.json": "file_unreadable",
    }
    now = await place.run("verify", "--topic", TOPIC, good)
    assert (now.process.returncode, verdicts(now)) == (1, {"good.json": ("refused", "too_old", None)})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--topic", "*", "--at", "yesterday"), "--at 'yesterday'"),
        (("--topic", "*", "--cert", "missing.pem"), "--cert 'missing.pem'"),
        ((), "--topic"),
    ],
)
async def test_unusable_options(place: Desk, arguments: tuple[str, ...], says: str) -> None:
    """Exit code 2, which is neither verdict; the option is named."""
    command = await place.run("verify", *arguments, "file.json")
    assert (command.process.returncode, command.said) == (2, "")
    assert says in command.complaint
    assert "Traceback" not in command.complaint


async def test_real_notifications(place: Desk) -> None:
    """Real messages of SNS are accepted if valid, except those signed with the 1024-bit key of 2012."""
    files = sorted(sample("notifications").glob("*/*.json"))
    command = await place.run("verify", "--at", "message", "--topic", "*", *files)
    assert (command.process.returncode, command.complaint) == (1, "")
    found = verdicts(command)
    assert len(found) == len(files)
    valid = {path.name for path in files if json.loads(path.read_bytes())["expected"] == "valid"}
    assert {name for name, (verdict, _, _) in found.items() if verdict == "accepted"} == {
        name for name in valid if "-2012-" not in name
    }
    refunds = {refund_id for _, _, refund_id in found.values() if refund_id}
    assert refunds == {"S01-0414412-1503685-R092574", "S02-8274313-3487267-R019346"}
