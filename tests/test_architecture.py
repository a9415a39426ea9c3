"""The layout: imports go down only, folders of nouns are pure, files and functions stay small enough to read.

The rules are functions of source text, so that each is also shown a text that breaks it: a rule that nothing can break
guards nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import receiver

ROOT = Path(receiver.__file__).parent

LAYERS = (
    {"errors", "exchange"},
    {"ledger"},
    {"amazon", "outbox"},
    {"runtime", "transport"},
    {"store"},
    {"settings"},
    {"receive", "track"},
    {"issue", "deliver"},
    {"http", "simulator"},
    {"client", "service"},
    {"commands"},
    {"__main__"},
)
"""Bottom first. A file or folder may import what is below its own layer: nothing beside it, nothing above."""
LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}

NOUNS = frozenset({"ledger", "amazon", "outbox"})
BELOW_NOUNS = NOUNS | {"errors", "exchange"}
SIMULATOR_MAY = frozenset({"simulator", "errors", "exchange", "transport", "runtime"})
"""It is the second implementation of what the service does: it must not agree with the first by sharing it."""

KINDS = ("Pure.", "Edge: ", "Verb.", "HTTP.", "Command.")
OWN_WORDS = {
    "receiver": "The map",
    "receiver.track.amazon_client": "One signed exchange with Amazon",
    "receiver.service": "Builds everything once",
    "receiver.track.record": "Read, decide, commit",
    "receiver.simulator": "A stand-in Amazon Pay",
}
"""Modules that are the only ones of their kind say what they are instead."""
KIND_OF_FOLDER = {**dict.fromkeys(NOUNS, ("Pure.",)), "store": ("Edge: ", "Pure."), "http": ("HTTP.",)}
MOST_ENTRIES, MOST_MODULES = 18, 20
"""Entries of `receiver/` without `__init__.py` and `__main__.py`; modules of one folder without its `__init__.py`."""

WITHOUT_IO = frozenset(
    {
        *(
            "__future__",
            "base64",
            "binascii",
            "codecs",
            "collections",
            "csv",
            "dataclasses",
            "datetime",
            "decimal",
            "difflib",
        ),
        *(
            "email",
            "enum",
            "functools",
            "hashlib",
            "hmac",
            "ipaddress",
            "itertools",
            "json",
            "math",
            "re",
            "types",
            "unicodedata",
        ),
        *("typing", "urllib.parse", "uuid", "xml.etree.ElementTree"),
        *("cryptography", "defusedxml", "msgspec", "pydantic"),
    }
)
"""The external modules that pure code may import. It is a list of allowed modules, because the forbidden ones cannot be
listed."""
CLOCK_AND_CHANCE = frozenset(
    {
        *("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "uuid.uuid1", "uuid.uuid4"),
        *("rsa.generate_private_key", "ec.generate_private_key", "Ed25519PrivateKey.generate"),
    }
)
"""Calls by which allowed modules read a clock or draw from the system's randomness."""
FOR_A_TYPE = {
    ("receiver.settings.consistency", "receiver.settings.sources"),
    ("receiver.simulator.notifications.forgeries", "receiver.simulator.keys"),
    ("receiver.commands.doctor.redis", "receiver.store.redis.sentinel"),
    ("receiver.commands.doctor.redis", "receiver.store.maintenance.probe"),
}
"""Imports by pure modules outside the folders of nouns that bring a type along, and nothing that acts."""
BUILTIN_IO = frozenset({"open", "input", "print", "breakpoint", "exec", "eval", "__import__"})

ONLY_IN: Mapping[str, tuple[str, ...]] = {
    "redis": ("receiver.store",),
    "jinja2": ("receiver.http.dashboard",),
    "aiohttp": (),
    "aiohappyeyeballs": ("receiver.transport.pool",),
    "aiodns": ("receiver.transport.resolver",),
    "pycares": ("receiver.transport.resolver",),
    "prometheus_client": ("receiver.runtime.gauges", "receiver.runtime.metrics", "receiver.runtime.tallies"),
    "opentelemetry": ("receiver.runtime.tracing",),
    "typer": ("receiver.commands",),
    "rich": ("receiver.commands",),
    "subprocess": ("receiver.store.embedded.process", "receiver.store.embedded.program"),
    "requests": (),
    "httpx": (),
    "urllib.request": (),
    "http.client": ("receiver.commands.healthcheck",),
    "pickle": (),
}
MAY_PRINT = ("receiver.commands",)
LONGEST_FILE, LONGEST_FUNCTION, MOST_PROTOCOLS = 310, 40, 8

Sources = Mapping[str, str]
Rule = Callable[[Sources], list[str]]


@cache
def project() -> Sources:
    """Module name → source text, of the whole package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


@cache
def tree_of(source: str) -> ast.Module:
    return ast.parse(source)


def unit_of(module: str) -> str:
    """`store` for `receiver.store.deliveries.queues`; empty for `receiver` itself."""
    return f"{module}.".split(".")[1]


def within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def imports(module: str, sources: Sources) -> Iterator[str]:
    """Full names of all modules that this one imports, wherever in the file. A relative import is `relative`."""
    for node in ast.walk(tree_of(sources[module])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level or not node.module:
                yield "relative"
                continue
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            known = [name for name in submodules if name in sources]
            yield from known
            if len(known) < len(submodules):
                yield node.module


def own_imports(module: str, sources: Sources) -> list[str]:
    return [name for name in imports(module, sources) if within(name, ("receiver",))]


def foreign_imports(module: str, sources: Sources) -> list[str]:
    return [name for name in imports(module, sources) if not within(name, ("receiver",))]


def kind_of(module: str, sources: Sources) -> str:
    """The kind with which the module's docstring begins; empty if it names none."""
    doc = ast.get_docstring(tree_of(sources[module])) or ""
    return next((kind for kind in KINDS if doc.startswith(kind)), "")


def is_pure(module: str, sources: Sources) -> bool:
    return kind_of(module, sources) == "Pure."


def calls(module: str, sources: Sources) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every call."""
    for node in ast.walk(tree_of(sources[module])):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def every_unit_has_a_layer(sources: Sources) -> list[str]:
    return [f"{module} is in no layer" for module in sources if unit_of(module) not in {*LEVEL, ""}]


def imports_go_down(sources: Sources) -> list[str]:
    return [
        f"{module} imports {name}"
        for module in sources
        for name in own_imports(module, sources)
        if unit_of(module) != unit_of(name) and LEVEL.get(unit_of(name), 99) >= LEVEL.get(unit_of(module), -1)
    ]


def no_import_is_relative(sources: Sources) -> list[str]:
    return [module for module in sources if "relative" in imports(module, sources)]


def imports_make_no_ring(sources: Sources) -> list[str]:
    graph = {module: set(own_imports(module, sources)) - {module} for module in sources}
    while free := {module for module, uses in graph.items() if not uses & graph.keys()}:
        graph = {module: uses for module, uses in graph.items() if module not in free}
    return sorted(graph)


def nouns_import_nouns(sources: Sources) -> list[str]:
    return [
        f"{module} imports {name}"
        for module in sources
        if unit_of(module) in NOUNS
        for name in own_imports(module, sources)
        if unit_of(name) not in BELOW_NOUNS
    ]


def pure_modules_do_no_io(sources: Sources) -> list[str]:
    found = []
    for module in sources:
        if not is_pure(module, sources) and unit_of(module) not in NOUNS:
            continue
        for name in foreign_imports(module, sources):
            if not any(within(name, (allowed,)) for allowed in WITHOUT_IO):
                found.append(f"{module} imports {name}")
        for line, name in calls(module, sources):
            short = ".".join(name.split(".")[-2:])
            if name in BUILTIN_IO or short in CLOCK_AND_CHANCE or name in CLOCK_AND_CHANCE:
                found.append(f"{module}:{line} calls {name}")
    return found


def pure_modules_import_pure_modules(sources: Sources) -> list[str]:
    return [
        f"{module} imports {name}"
        for module in sources
        if is_pure(module, sources)
        for name in own_imports(module, sources)
        if name in sources and not is_pure(name, sources) and (module, name) not in FOR_A_TYPE
    ]


def the_simulator_stands_alone(sources: Sources) -> list[str]:
    return [
        f"{module} imports {name}"
        for module in sources
        if unit_of(module) == "simulator"
        for name in own_imports(module, sources)
        if unit_of(name) not in SIMULATOR_MAY
    ]


def libraries_stay_in_their_places(sources: Sources) -> list[str]:
    return [
        f"{module} imports {name}"
        for module in sources
        for name in foreign_imports(module, sources)
        for library, places in ONLY_IN.items()
        if within(name, (library,)) and not within(module, places)
    ]


def every_module_says_its_kind(sources: Sources) -> list[str]:
    found = []
    for module in sources:
        doc = ast.get_docstring(tree_of(sources[module])) or ""
        if module in OWN_WORDS:
            right = doc.startswith(OWN_WORDS[module])
        else:
            expected = KIND_OF_FOLDER.get(unit_of(module), ("",))
            right = bool(kind_of(module, sources)) and doc.startswith(expected)
        if not right:
            found.append(f"{module}: {doc[:40]!r}")
    return found


def folders_are_small(sources: Sources) -> list[str]:
    """Entries of `receiver/`, and modules of each folder within it."""
    entries = {unit_of(module) for module in sources} - {"", "__main__"}
    found = [f"receiver has {len(entries)} entries"] if len(entries) > MOST_ENTRIES else []
    folders = {module.rpartition(".")[0] for module in sources} - {"", "receiver"}
    for folder in folders:
        there = [module for module in sources if module.rpartition(".")[0] == folder and module not in folders]
        if len(there) > MOST_MODULES:
            found.append(f"{folder} has {len(there)} modules")
    return found


def files_are_short(sources: Sources) -> list[str]:
    sizes = {module: source.count("\n") for module, source in sources.items()}
    return [f"{module} has {size} lines" for module, size in sizes.items() if size > LONGEST_FILE]


def functions_are_short(sources: Sources) -> list[str]:
    """Counted without signature and docstring: a long list of options is not hard to read, a long body is."""
    return [
        f"{module}:{node.lineno} {node.name} has {size} lines"
        for module, source in sources.items()
        for node in ast.walk(tree_of(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (size := lines_of(node)) > LONGEST_FUNCTION
    ]


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def protocols_are_few(sources: Sources) -> list[str]:
    """So that a call leads a reader to the class, not to a second description of it."""
    found = [
        f"{module}:{node.lineno} {node.name}"
        for module, source in sources.items()
        for node in ast.walk(tree_of(source))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
    ]
    return found if len(found) > MOST_PROTOCOLS else []


def nothing_is_checked_by_assert(sources: Sources) -> list[str]:
    """`python -O` leaves these statements out."""
    return [
        f"{module}:{node.lineno}"
        for module, source in sources.items()
        for node in ast.walk(tree_of(source))
        if isinstance(node, ast.Assert)
    ]


def only_commands_print(sources: Sources) -> list[str]:
    return [
        f"{module}:{line}"
        for module in sources
        if not within(module, MAY_PRINT)
        for line, name in calls(module, sources)
        if name in ("print", "builtins.print", "sys.stdout.write")
    ]


PURE = '"""Pure."""\n'
LONG = "def f():\n" + "    x = 1\n" * (LONGEST_FUNCTION + 1)
BROKEN: dict[Rule, list[dict[str, str]]] = {
    every_unit_has_a_layer: [{"receiver.helpers": ""}],
    imports_go_down: [
        {"receiver.receive.receiver": "from receiver.track.tracker import Tracker"},
        {"receiver.errors": "import receiver.exchange"},
        {"receiver.ledger.refund": "from receiver.outbox.events.event import Event"},
        {
            "receiver.store.deliveries.queues": "def f():\n    from receiver.track import record",
            "receiver.track.record": "",
        },
        {"receiver.http.app": "from receiver.service import Service"},
        {"receiver.track.tracker": "from receiver.helpers import x"},
    ],
    no_import_is_relative: [
        {"receiver.receive.receiver": "from .track import Tracker"},
        {"receiver.a": "from . import b"},
    ],
    imports_make_no_ring: [
        {"receiver.store.a": "from receiver.store import b", "receiver.store.b": "import receiver.store.a"},
    ],
    nouns_import_nouns: [
        {"receiver.ledger.refund": "from receiver.settings.sources import read_file"},
        {"receiver.amazon.notification": "import receiver.store"},
    ],
    pure_modules_do_no_io: [
        {"receiver.ledger.refund": "import time"},
        {"receiver.amazon.account": f"{PURE}import random"},
        {"receiver.amazon.account": f"{PURE}from os import environ"},
        {"receiver.amazon.account": f"{PURE}import urllib.request"},
        {"receiver.amazon.account": f"{PURE}import structlog"},
        {"receiver.amazon.account": f"{PURE}now = datetime.now()"},
        {"receiver.amazon.account": f"{PURE}now = datetime.datetime.now(UTC)"},
        {"receiver.amazon.sns.envelope": "open('x')"},
    ],
    pure_modules_import_pure_modules: [
        {"receiver.amazon.account": f"{PURE}import receiver.store", "receiver.store": '"""Edge: Redis."""'},
    ],
    the_simulator_stands_alone: [{"receiver.simulator.checks": "from receiver.amazon import signing"}],
    libraries_stay_in_their_places: [
        {"receiver.track.tracker": "import redis"},
        {"receiver.receive.certificates": "from aiohttp import ClientSession"},
        {"receiver.storehouse": "from redis.asyncio import Redis"},
        {"receiver.store.refunds.codec": "import pickle"},
    ],
    every_module_says_its_kind: [
        {"receiver.track.tracker": ""},
        {"receiver.ledger.refund": '"""Edge: files."""'},
        {"receiver.track.record": '"""Settles."""'},
        {"receiver.settings.sources": '"""Purely."""'},
    ],
    folders_are_small: [
        {f"receiver.a{number}": "" for number in range(MOST_ENTRIES + 1)},
        {f"receiver.store.a{number}": "" for number in range(MOST_MODULES + 1)},
    ],
    files_are_short: [{"receiver.track.tracker": "\n" * (LONGEST_FILE + 1)}],
    functions_are_short: [{"receiver.track.tracker": LONG}, {"receiver.track.tracker": f"async {LONG}"}],
    protocols_are_few: [{"receiver.track.tracker": "class P(Protocol): ...\n" * (MOST_PROTOCOLS + 1)}],
    nothing_is_checked_by_assert: [{"receiver.track.tracker": "def f(x):\n    assert x"}],
    only_commands_print: [{"receiver.track.tracker": "print(1)"}, {"receiver.commandments": "print(1)"}],
}
"""Every rule, with made-up projects that break it."""


@pytest.mark.parametrize("rule", BROKEN, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(rule: Rule) -> None:
    """Nothing in `receiver/` breaks it."""
    assert rule(project()) == []


@pytest.mark.parametrize("rule", BROKEN, ids=lambda rule: rule.__name__)
def test_the_rule_sees_what_breaks_it(rule: Rule) -> None:
    """Each made-up project is reported."""
    for sources in BROKEN[rule]:
        assert rule(sources), sources


FINE = {
    "receiver.ledger.refund": f"{PURE}import msgspec\nfrom datetime import datetime\ndatetime.fromtimestamp(0)",
    "receiver.outbox.events.event": f"{PURE}import receiver.ledger.refund\nfrom receiver import errors",
    "receiver.errors": PURE,
    "receiver.store": '"""Edge: Redis."""\nfrom receiver.store.deliveries import queues',
    "receiver.store.deliveries.queues": '"""Edge: Redis."""\nfrom redis.asyncio import Redis',
    "receiver.commands.demo.demo": '"""Command."""\nprint(1)',
}


@pytest.mark.parametrize("rule", BROKEN, ids=lambda rule: rule.__name__)
def test_the_rule_lets_what_is_right_pass(rule: Rule) -> None:
    """A rule that reports everything would be switched off soon."""
    assert rule(FINE) == []


def test_the_layers_name_what_is_there_and_nothing_else() -> None:
    """So a removed file must also be removed from the layers."""
    assert {unit_of(module) for module in project()} - {""} == set(LEVEL)


def test_the_map_names_every_room() -> None:
    """The reading list in `receiver/__init__.py` leaves out no file, no folder and no folder within one."""
    top, inside = map_entries(project()["receiver"])
    assert set(top) == {unit_of(module) for module in project()} - {"", "__main__"}
    folders = {name.removeprefix("receiver.") for name in project() if is_folder(name)}
    named = {f"{room}.{name}" for room, names in inside.items() for name in names}
    assert named == {each for each in folders if "." in each}


def is_folder(module: str) -> bool:
    return any(other.startswith(f"{module}.") for other in project()) and module != "receiver"


def map_entries(source: str) -> tuple[list[str], dict[str, list[str]]]:
    """The files and folders that the map names, and the folders within folders. `a.py · b.py` is two."""
    top: list[str] = []
    inside: dict[str, list[str]] = {}
    for line in (ast.get_docstring(tree_of(source)) or "").splitlines():
        depth = len(line) - len(line.lstrip())
        names = re.findall(r"(\w+)(?:\.py|/)(?= |$)", line.strip().split("  ")[0]) if depth in (4, 8) else []
        if depth == 4:
            top += names
        elif names:
            inside.setdefault(top[-1], []).extend(names)
    return top, inside


def test_the_map_draws_the_layers_that_are_guarded() -> None:
    """The last block of the map is `LAYERS`, top first."""
    doc = ast.get_docstring(tree_of(project()["receiver"])) or ""
    drawn = [set(line[4:].split(" · ")) for line in doc.splitlines() if line.startswith("  │ ")]
    assert drawn == [set(units) for units in reversed(LAYERS)]
    assert len(doc.splitlines()) <= 66
