"""The pages: README.md, tests/README.md and those in deploy/, taken apart into what can be checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.kit.processes import PROJECT

DEPLOY = PROJECT / "deploy"
PATHS = (PROJECT / "README.md", PROJECT / "tests" / "README.md", *sorted(DEPLOY.glob("*.md")))

FENCE = re.compile(
    r"^(?: *<!-- (?P<mark>[^>]*?) -->\n)?(?P<indent> *)(?:[0-9]+\. )?```(?P<language>[a-z]*)\n(?P<text>.*?)\n *```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
SPAN = re.compile(r"(`+)(.+?)\1", re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
TEST = re.compile(r"(?P<file>tests/[a-z_/]+\.py)(?:::(?P<name>test_[a-z0-9_]+))?")


@dataclass(frozen=True)
class Block:
    """A fenced block. `mark` is the comment right before it: why it is not run, or what runs it."""

    page: str
    number: int
    language: str
    text: str
    mark: str

    @property
    def id(self) -> str:
        return f"{self.page}-{self.number}"


@dataclass(frozen=True)
class Page:
    """One page."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(PROJECT))

    @property
    def text(self) -> str:
        return _read(self.path)

    @property
    def blocks(self) -> list[Block]:
        """Every fenced block, without the indentation of a list that it stands in."""
        found = enumerate(FENCE.finditer(self.text), start=1)
        return [
            Block(self.name, number, each["language"], _flush(each["text"]), each["mark"] or "")
            for number, each in found
        ]

    @property
    def prose(self) -> str:
        """Everything else."""
        return _prose(self.path)

    @property
    def spans(self) -> list[str]:
        """Everything between backticks in the prose, a line break being a space."""
        return [
            " ".join(each[2].split()) for each in SPAN.finditer(re.sub(r"<!--.*?-->", "", self.prose, flags=re.DOTALL))
        ]

    @property
    def links(self) -> list[tuple[str, str]]:
        """(text, target) of every link and picture."""
        return [(each["text"], each["target"]) for each in LINK.finditer(self.prose)]

    @property
    def anchors(self) -> set[str]:
        """What can stand after `#`, as GitHub makes it of headings."""
        return {slug(each) for each in HEADING.findall(self.prose)}


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    words = re.sub(r"[^\w\- ]", "", LINK.sub(r"\1", heading).lower())
    return words.replace(" ", "-")


def _flush(text: str) -> str:
    lines = text.split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[margin:] for line in lines)


@cache
def _read(path: Path) -> str:
    return path.read_text("utf-8")


@cache
def _prose(path: Path) -> str:
    return FENCE.sub("", _read(path))


def named_tests(text: str) -> Iterator[tuple[str, str]]:
    """(file, name or empty) of every test that a text names."""
    for each in TEST.finditer(text):
        yield each["file"], each["name"] or ""


def has_test(file: str, name: str) -> bool:
    """Whether there is such a test."""
    path = PROJECT / file
    return path.is_file() and (not name or bool(re.search(rf"^(async )?def {name}\(", _read(path), re.MULTILINE)))


PAGES = tuple(Page(path) for path in PATHS)
