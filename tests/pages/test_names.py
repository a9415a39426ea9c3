"""Everything that the pages name exists: commands, options, settings, routes, metrics, reasons, log lines, fields.

Every text between backticks is checked. Names of other projects (Redis, Amazon, Slack, …) are in `OTHERS`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from receiver.http.openapi import OPERATIONS, document
from receiver.outbox.subscribers.reading import FIELDS
from receiver.runtime.gauges import GAUGES
from receiver.runtime.metrics import DELIVERED, REASONS, Metrics
from receiver.settings import Settings
from receiver.settings.subscriber import OWN
from tests.commands.test_cli import COMMANDS
from tests.http.kit import settings as settings_of
from tests.kit.processes import PROJECT
from tests.pages.kit import DEPLOY, PAGES, Page

OPTIONS = frozenset(
    {"--help", "--version", "--install-completion", *(option for options in COMMANDS.values() for option in options)}
)
PATH = re.compile(r"(?:(?:GET|POST|PATCH|DELETE|PUT),? ?)*(/[^\s?]*)(?:\?(\S*))?")
METRIC = re.compile(r"(receiver_[a-z_]+)(?:\{(.*?)\})?( [<>=].*)?")
NAME = re.compile(r"[a-z][a-z0-9]*(?:[_.][a-z0-9_]+)+")
WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:-[A-Za-z0-9]+)*")

OTHERS = frozenset(
    word
    for line in (
        "appendonly appendfsync always everysec maxmemory maxmemory-policy noeviction SLOWLOG NOGROUP dump rdb",
        "OTEL_EXPORTER_OTLP_HEADERS OTEL_BSP_SCHEDULE_DELAY",
        "XREAD XREADGROUP XGROUP XACK XAUTOCLAIM XRANGE ACL SETUSER CONFIG LATENCY valkey-cli",
        "pay-api.amazon.com pay-api.amazon.eu pay-api.amazon.jp pay.example sns.*.amazonaws.com x-amz-pay-authtoken",
        "TopicArn SubscriptionConfirmation merchantReferenceId AmazonTransactionId TransactionType publicKey.pub pem",
        "EventSource Last-Event-ID ETag If-None-Match Accept HTTP_PROXY traceparent X-Forwarded-For Retry-After Secure",
        "LimitNOFILE PYTHON_IMAGE RECEIVER_SECRETS RECEIVER_TOML MemoryDenyWriteExecute systemd-analyze security",
        "systemctl reload nginx kubectl rollout restart deployment helm upgrade ConfigMap DEPLOY_TOOLS SIGTERM kill",
        "id.timestamp.body announce-hostnames cluster-preferred-endpoint-type cluster-require-full-coverage",
        "MIGRATESLOTS min-replicas-max-lag down-after-milliseconds cluster-node-timeout NODE",
        "GLIBC_TUNABLES PYTHONMALLOC glibc malloc hugetlb",
        "nohup durations PATH CI eventsource",
    )
    for word in line.split()
)


@cache
def source() -> str:
    """The sources of the service, and the files for operators."""
    kinds = (
        "*.py",
        "*.lua",
        "*.html",
        "*.js",
        "*.toml",
        "*.yml",
        "*.yaml",
        "*.conf",
        "*.service",
        "*.mjs",
        "*.txt",
        "*.json",
    )
    folders = (PROJECT / "receiver", DEPLOY)
    files = [path for folder in folders for kind in kinds for path in folder.rglob(kind)]
    return "\n".join(path.read_text("utf-8") for path in [*files, PROJECT / "pyproject.toml"])


def fields_in(schema: Any) -> Iterator[str]:
    """The names of the fields of every object in a part of the API's description."""
    if isinstance(schema, dict):
        yield from schema.get("properties", ())
    for each in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from fields_in(each)


@cache
def fields() -> frozenset[str]:
    """Those of answers follow from names in the code; they are written in full in the description alone."""
    return frozenset(fields_in(document()))


@cache
def words() -> frozenset[str]:
    return frozenset(WORD.findall(source())) | fields()


@cache
def literals() -> frozenset[str]:
    """Every string literal of the code, and the reasons, which are together in one literal."""
    found = {*fields(), *REASONS, *(f"delivery.{outcome}" for outcome in DELIVERED)}
    for path in (PROJECT / "receiver").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.keyword | ast.arg) and node.arg:
                found.add(node.arg)
    return frozenset(found)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, tuple, list) or get_args(annotation):
        for each in get_args(annotation):
            yield from models_in(each)


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for inner in models_in(field.annotation):
            yield from keys_of(inner, f"{prefix}{name}.")


SETTINGS = frozenset((*keys_of(Settings), *(f"subscribers.{name}" for name in (*FIELDS, *OWN))))


@cache
def metrics() -> dict[str, set[str]]:
    """Every metric by the names that its samples have, and its labels."""
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    collectors = Metrics().registry._collector_to_names
    labels = {each._name: set(each._labelnames) for each in collectors if isinstance(each, MetricWrapperBase)}
    labels |= {f"receiver_{name}": set(names) for name, (_, *names) in GAUGES.items()}
    families = text_string_to_metric_families(Metrics().render().decode())
    return {
        f"{family.name}{ending}": labels.get(family.name, set())
        for family in families
        for ending in ("", *endings.get(family.type, ()))
    }


@cache
def routes() -> tuple[re.Pattern[str], ...]:
    """Of each route, what its path looks like."""
    found = {path for path, _ in OPERATIONS} | set(re.findall(r'(?:Route|page|form)\(\s*f?"(/[^"]*)"', source()))
    found |= set(re.findall(r'\("[A-Z]+", "(/[^"]*)"', source()))
    found |= {f"/simulator{each}" for each in found} | {"/simulator", "/"}
    return tuple(re.compile(re.sub(r"\{\w+(:\w+)?\}", r"[^/]+", each)) for each in found)


def bad_command(text: str) -> str:
    """What is wrong with `receiver …`; empty if nothing is."""
    tokens = text.replace("[", " ").replace("]", " ").split()[1:]
    names = [token for token in tokens[:2] if re.fullmatch(r"[a-z][a-z-]*", token)]
    groups = {name.split()[0] for name in COMMANDS}
    if not names:
        return "" if not tokens or tokens[0] in OPTIONS else f"{tokens[0]} is no command"
    if names[0] not in groups:
        return f"{names[0]} is no command"
    known = [name for name in COMMANDS if name == " ".join(names) or name == names[0]]
    inner = [name for name in COMMANDS if name.startswith(f"{names[0]} ")]
    if inner and len(names) > 1 and not known and f"{' '.join(names)}" not in (*COMMANDS, "subscriber show"):
        return f"{' '.join(names)} is no command"
    allowed = {"--help"}.union(*(COMMANDS[name] for name in known or inner))
    given = {token.partition("=")[0].rstrip(",.") for token in tokens if token.startswith("--")}
    return f"{given - allowed} is no option" if given - allowed else ""


def bad_module(text: str) -> str:
    """What is wrong with `python -m tests.…`: the files of that folder must contain its words."""
    folder = PROJECT / text.split()[2].replace(".", "/")
    if not (folder / "__main__.py").exists():
        return "is no command"
    code = "".join(path.read_text() for path in folder.glob("*.py"))
    words_of_it = [word.lstrip("-") for word in text.split()[3:] if not word.isdigit() and word != "--help"]
    unknown = [word for word in words_of_it if f'"{word}"' not in code and f'"--{word}"' not in code]
    unknown = [word for word in unknown if not (PROJECT / word).is_file()]
    return f"{unknown} is nowhere in its code" if unknown else ""


def bad_metric(text: str) -> str:
    found = METRIC.fullmatch(text)
    if found is None or found[1] not in metrics():
        return "is no metric"
    for label, value in re.findall(r'(\w+)="([^"]*)"', found[2] or ""):
        if label not in metrics()[found[1]]:
            return f"has no label {label}"
        if value and value not in words():
            return f"knows no {value}"
    return ""


def bad_path(path: str) -> str:
    shown = path.replace("…", "x")
    return "" if any(route.fullmatch(shown.rstrip("/") or "/") for route in routes()) else "is no route"


def bad_name(name: str) -> str:
    """A name with dots or underscores: a setting, a reason, a line of the log, a check, a field, a file."""
    ends = name.rpartition(".")[2]
    known = name in SETTINGS or name in literals() or name in OTHERS or name in words() or (DEPLOY / name).exists()
    if known or any(key.endswith(f".{name}") for key in SETTINGS):
        return ""
    if ends in (
        "toml",
        "py",
        "mjs",
        "md",
        "txt",
        "yml",
        "yaml",
        "rdb",
        "json",
        "csv",
        "part",
        "pem",
        "secret",
        "conf",
        "log",
        "pub",
    ):
        return ""
    head = name.partition(".")[0]
    if head in ("statusDetails", "data") and set(name.split(".")) - {"data"} <= words():
        return ""
    return "is nothing that there is"


def bad(text: str) -> str:
    """What is wrong with a text between backticks; empty if nothing is."""
    if text.startswith("receiver ") and not text.startswith("receiver:"):
        return bad_command(text)
    if re.fullmatch(r"test_\w+", text) or (DEPLOY / text).exists() or (PROJECT / text).exists():
        return ""
    if text.startswith("python -m tests."):
        return bad_module(text)
    if text.startswith("--"):
        return "" if text.split()[0] in OPTIONS else "is no option"
    if METRIC.fullmatch(text):
        return bad_metric(text)
    if (path := PATH.fullmatch(text)) and not text.startswith("//"):
        if path[1].startswith(("/data", "/etc", "/var", "/run", "/opt", "/tmp")):
            return ""
        unknown = [each for each in re.findall(r"[?&]?(\w+)=", path[2] or "") if each not in literals()]
        return bad_path(path[1]) or (f"has no parameter {unknown}" if unknown else "")
    if re.fullmatch(r"[\[\]a-z_.]+", text) and text.startswith("["):
        return "" if text.strip("[]") in SETTINGS else "is no table of the settings"
    if NAME.fullmatch(text):
        return bad_name(text)
    return _bad_words(text)


def bad_in_tests(text: str) -> str:
    """What is wrong with a text between backticks in the page about the tests: the tests must contain its words."""
    if text.startswith("python -m tests."):
        return bad_module(text)
    if (PROJECT / text).exists() or (PROJECT / "tests" / text).exists():
        return ""
    unknown = [word for word in WORD.findall(text) if word not in words() | words_of_tests() | OTHERS]
    return f"{unknown} is nowhere in the tests" if unknown else ""


@cache
def words_of_tests() -> frozenset[str]:
    files = [*(PROJECT / "tests").rglob("*.py"), PROJECT / ".ci" / "run"]
    return frozenset(WORD.findall("\n".join(path.read_text("utf-8") for path in files)))


def _bad_words(text: str) -> str:
    """For any other text: the code must contain each word that could be ours."""
    unknown = [
        word
        for word in WORD.findall(re.sub(r"https?://\S+|whsec_\S+|[A-Z]\d\d-[\d-]+(?:[RC]\d+)?|…\S*", " ", text))
        if word not in words() and word not in OTHERS and not any(word in other for other in OTHERS)
    ]
    return f"{unknown} is nowhere in the code" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_named_exists(page: Page) -> None:
    judge = bad_in_tests if page.name == "tests/README.md" else bad
    assert [(span, fault) for span in page.spans if (fault := judge(span))] == []


@pytest.mark.parametrize(
    "text",
    [
        *("receiver refunds list", "receiver refund got", "receiver refund list --stat", "receiver serve --dry-run"),
        *("--no-such-option", "receiver_no_such_metric", 'receiver_notifications_total{why=""}'),
        *("GET /v1/refund", "/v1/refunds/{id}/histori", "GET /v1/refunds?stat=", "[[account]]", "accounts.topics"),
        *("redis.wait", "bad_signatur", "delivery.deaf", "refundedAmounts"),
    ],
)
def test_what_does_not_exist_is_seen(text: str) -> None:
    assert bad(text)


@pytest.mark.parametrize(
    "text", ["tests/ht" + "p", "RECEIVER_TEST_SAMPLE" + "Z", "python -m tests.faults --for" + "ever"]
)
def test_what_no_test_knows_is_seen(text: str) -> None:
    assert bad_in_tests(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_blocks_exist(page: Page) -> None:
    """With their options, also in blocks that are not run here."""
    lines = [line for block in page.blocks if block.language == "sh" for line in _joined(block.text)]
    found = [each for line in lines for each in re.findall(r"(?:^|[ /])(receiver (?!:).*?)(?=$| [|>&#;]| \|\|)", line)]
    commands = [each for each in found if re.match(r"receiver [a-z-]", each)]
    assert [(each, fault) for each in commands if _is_command(each) and (fault := bad_command(each))] == []


def _joined(text: str) -> list[str]:
    return text.replace("\\\n", " ").split("\n")


def _is_command(text: str) -> bool:
    """`useradd receiver`, a unit's or a secret's name are none."""
    return text.split()[1] in {name.split()[0] for name in COMMANDS}


def test_every_command_and_route_is_in_a_page() -> None:
    """What there is can be found."""
    text = "\n".join(page.text for page in PAGES)
    missing = [name for name in COMMANDS if f"receiver {name}" not in text]
    assert missing == []
    ours = {path for path, _ in OPERATIONS}
    shown = re.sub(r"\{\w+\}", "{}", text)
    assert [route for route in sorted(ours) if re.sub(r"\{\w+\}", "{}", route) not in shown] == []


def test_settings_named_in_the_kit_are_those_of_the_tests() -> None:
    """The names come from the model that the service reads."""
    assert {"accounts.topic_arns", "delivery.public_url", "subscribers.min_amount", "accounts.throttle"} <= SETTINGS
    assert isinstance(settings_of(), Settings)
