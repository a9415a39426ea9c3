"""Everything that the image installs can be used freely: each pinned package has a permissive licence, by its
metadata."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata

from tests.deploy.tools import DEPLOY

NAMES = re.findall(r"^([A-Za-z0-9._-]+)==", (DEPLOY / "requirements.txt").read_text(), re.MULTILINE)
ELSEWHERE = {"async-timeout", "colorama"}
"""Needed by other versions of Python, or on Windows: Apache-2.0 and BSD-3-Clause."""
PERMISSIVE = re.compile(r"MIT|BSD|Apache|PSF|Python Software Foundation|ISC")
OTHERS = re.compile(r"GPL|MPL|Mozilla|EPL|CDDL|SSPL|Commons|Proprietary", re.IGNORECASE)


def words(name: str) -> str:
    """What the package's metadata say of its licence: https://packaging.python.org/specifications/core-metadata/."""
    told = metadata(name)
    said, older = told.get_all("License-Expression", []), told.get_all("License", [])
    classifiers = [line for line in told.get_all("Classifier", []) if line.startswith("License ::")]
    return " ".join([*said, *classifiers, *(text.partition("\n")[0] for text in older)])


def test_every_pinned_package_is_permissive() -> None:
    """Those that are not installed here are named, so that a new one cannot slip through."""
    assert len(NAMES) > 30
    found, absent = {}, set()
    for name in NAMES:
        try:
            found[name] = words(name)
        except PackageNotFoundError:
            absent.add(name)
    assert absent <= ELSEWHERE
    assert {name: said for name, said in found.items() if not PERMISSIVE.search(said) or OTHERS.search(said)} == {}
