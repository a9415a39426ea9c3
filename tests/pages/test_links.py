"""Links between the pages, to files and to tests lead somewhere; no page is left out."""

from __future__ import annotations

import re

import pytest

from tests.kit.processes import PROJECT
from tests.pages.kit import DEPLOY, PAGES, PATHS, Page, has_test, named_tests, slug

BY_PATH = {page.path: page for page in PAGES}
GUIDE, README = BY_PATH[DEPLOY / "README.md"], BY_PATH[PROJECT / "README.md"]


def lost(page: Page, target: str) -> str:
    """What is wrong with a link of this page; empty if nothing is."""
    if target.startswith(("https://", "http://")):
        return "" if target.startswith("https://") else "not https"
    file, _, anchor = target.partition("#")
    path = (page.path.parent / file).resolve() if file else page.path
    if not path.exists():
        return "no such file"
    if PROJECT not in (path, *path.parents):
        return "outside of the project"
    if anchor and (path not in BY_PATH or anchor not in BY_PATH[path].anchors):
        return "no such heading"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Page) -> None:
    """To a file of the project, and to a heading of a page."""
    assert page.links or page.name == "deploy/issuing.md"
    assert [(target, fault) for _, target in page.links if (fault := lost(page, target))] == []


@pytest.mark.parametrize("target", ["nothing.md", "README.md#nothing", "#nothing", "http://a.example/", "../../x"])
def test_a_link_that_leads_nowhere_is_seen(target: str) -> None:
    assert lost(GUIDE, target)


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("6. See one refund through", "6-see-one-refund-through"),
        ("The feed: `GET /v1/events`", "the-feed-get-v1events"),
        ("[Retention](x.md), and more", "retention-and-more"),
    ],
)
def test_anchors_are_githubs(heading: str, anchor: str) -> None:
    assert slug(heading) == anchor


def test_no_page_is_left_out() -> None:
    """Both front doors lead to every page."""
    pages = {path.name for path in PATHS if path.parent == DEPLOY}
    assert {target for _, target in GUIDE.links} >= pages - {"README.md"}
    assert {target.removeprefix("deploy/") for _, target in README.links} >= pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_is_named_exists(page: Page) -> None:
    """By a link whose text is its name, or by its path in a comment."""
    linked = [(target, text.strip("`")) for text, target in page.links if re.fullmatch(r"`test_\w+`", text)]
    named = [(target.removeprefix("../"), name) for target, name in linked]
    named += list(named_tests(page.text))
    assert [each for each in named if not has_test(*each)] == []


def test_every_failure_is_shown_by_a_test() -> None:
    """The last cell of each row of the tables of failure.md."""
    (page,) = (page for page in PAGES if page.name == "deploy/failure.md")
    rows = [line for line in page.text.splitlines() if line.startswith("| ") and "what happens" not in line]
    assert len(rows) > 40
    assert [row for row in rows if not re.search(r"\[`test_\w+`\]\(\.\./tests/[^)]+\) \|$", row)] == []


def test_every_guarantee_is_shown_by_a_test() -> None:
    """The last cell of each row under "Guarantees" of faults.md names tests, and nothing else."""
    (page,) = (page for page in PAGES if page.name == "deploy/faults.md")
    section = page.text.partition("\n## Guarantees\n")[2].partition("\n## ")[0]
    cells = [line.split(" | ")[1] for line in section.splitlines() if line.startswith("| ") and "| test |" not in line]
    assert len(cells) > 5
    one = r"\[`test_\w+`\]\(\.\./tests/[^)]+\)"
    assert [cell for cell in cells if not re.fullmatch(rf"{one}(, {one})* \|", cell)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_whole(page: Page) -> None:
    """Every row has as many cells as its head; a stray `|` would shift them."""
    head = 0
    for line in page.prose.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line))) if line.startswith("|") else 0
        assert not cells or not head or cells == head, line
        head = cells
