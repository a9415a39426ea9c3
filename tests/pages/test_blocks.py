"""Every command of the pages is run unchanged against a real service; a block that is not run says why."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from receiver.ledger.schema import refund_json
from receiver.settings import check
from tests.kit.accounts import merchant_key_pem
from tests.kit.configuration import SECRET, table
from tests.kit.wire import as_json
from tests.outbox.examples import an_event
from tests.pages.kit import PAGES, Block, has_test, named_tests
from tests.pages.shop import Shop, shop

BLOCKS = [block for page in PAGES for block in page.blocks]
COMMANDS = [block for block in BLOCKS if block.language in ("sh", "python")]
RUN = [block for block in COMMANDS if not block.mark]
NEEDS = ("bash", "curl", "node", "openssl")


PAGES_WITH_COMMANDS = sorted({block.page for block in RUN})


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", [0, 1, 2])
async def test_the_commands_of_the_pages_work(part: int) -> None:
    """Block after block, in the order of each page; every line ends well. A third of the pages shares a service."""
    missing = [program for program in NEEDS if not shutil.which(program)]
    if missing:
        pytest.skip(f"install {', '.join(missing)}: the commands of the pages need them")
    faults = []
    async with shop() as at:
        for page in PAGES_WITH_COMMANDS[part::3]:
            at.lay_out()
            for block in RUN:
                if block.page == page and (ran := await at.run_block(block)).code:
                    faults.append(f"{block.id}\n{block.text}\n--- exit code {ran.code}\n{ran.said[-4000:]}")
            at.end()
        await failures_are_seen(at)
    assert not faults, "\n\n".join(faults)


async def failures_are_seen(at: Shop) -> None:
    """In any line, also one that should have gone on for ever."""
    for text in ("false\ntrue", "receiver refund get S01-unknown\ntrue", "receiver events tai --json\ntrue"):
        assert (await at.run(text)).code, text


@pytest.mark.parametrize("block", [block for block in COMMANDS if block.mark], ids=lambda block: block.id)
def test_what_is_not_run_says_why(block: Block) -> None:
    """`not run: …`, or `run by tests/…`; the tests that it names exist."""
    assert re.match(r"not run: \S|run by tests/\S", block.mark), block.mark
    named = list(named_tests(block.mark))
    assert named or block.mark.startswith("not run")
    assert [each for each in named if not has_test(*each)] == []


def test_most_is_run() -> None:
    """Of the pages for users, all but a few; the operators' page speaks of Docker, Kubernetes and systemd."""
    users = [block for block in COMMANDS if block.page != "deploy/README.md"]
    assert len([block for block in users if not block.mark]) >= 25
    assert {block.language for block in BLOCKS} <= {"sh", "python", "text", "toml", "json", "mermaid"}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "toml"], ids=lambda block: block.id)
def test_settings_in_pages_load(block: Block, tmp_path: Path) -> None:
    """Unchanged, with an account added if they have none."""
    tree: dict[str, Any] = tomllib.loads(block.text)
    (tmp_path / "amazon-pay.pem").write_bytes(merchant_key_pem())
    (tmp_path / "mail.secret").write_text(SECRET)
    (tmp_path / "redis-password").write_text("password-of-nobody")
    assert check({"accounts": [table("us")], **tree}, tmp_path).accounts


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "json"], ids=lambda block: block.id)
def test_json_in_pages_is_json(block: Block) -> None:
    """That of a refund has exactly the keys of the API, in its order."""
    found = json.loads(block.text)
    if "refundId" in found:
        told = as_json(refund_json(an_event().refund))
        assert [*found] == [*told, "advice"]
        assert [*found["statusDetails"]] == [*told["statusDetails"]]
