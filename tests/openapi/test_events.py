"""Every type of event that is pushed has its webhook and its schema, and each schema knows its own events alone."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from enum import StrEnum
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from typer.testing import CliRunner

import receiver
from receiver.commands.cli import app as commands
from receiver.http.openapi import document
from receiver.http.openapi.webhooks import event_schemas
from receiver.ledger.lifecycle import EventType
from receiver.outbox.events.balance_event import balance_cloud_event
from receiver.outbox.events.dispute_event import dispute_cloud_event
from receiver.outbox.events.envelope import AnEvent, CloudEventJson
from receiver.outbox.events.kinds import KNOWN_TYPES
from receiver.outbox.events.mismatch_event import mismatch_cloud_event
from receiver.outbox.events.operator_event import OperatorEvent, OperatorType, operator_cloud_event, operator_event
from receiver.outbox.formats.cloudevents import EVENT_SHAPES, SHAPE_OF, TO_JSON, cloud_event
from receiver.outbox.formats.registry import FORMATS
from tests.openapi.conform import event_faults
from tests.outbox.examples import NOW, an_event
from tests.outbox.test_balance_event import alarm, over
from tests.outbox.test_dispute_event import event as reminder
from tests.outbox.test_mismatch_event import event as mismatch

TYPE = re.compile(r"(amazonpay|receiver)\.[a-z_]+\.[a-z_]+")


def declared() -> set[str]:
    """Every type of event that some module declares."""
    for module in pkgutil.walk_packages(receiver.__path__, "receiver."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return {word.value for words in StrEnum.__subclasses__() for word in words if TYPE.fullmatch(word.value)}


def test_every_type_has_its_shape_its_webhook_and_its_schema() -> None:
    """Every kind can also be read, and every format can express it; some formats have no form for operator events."""
    assert {*EVENT_SHAPES} == {*CloudEventJson.__subclasses__()}
    assert {*TO_JSON} == {*AnEvent.__subclasses__()}
    assert declared() == KNOWN_TYPES
    for each in FORMATS.values():
        assert {*TO_JSON} - {*each.renderers} <= {OperatorEvent}, each.name
    assert sorted(SHAPE_OF) == sorted(declared())
    assert [*document()["webhooks"]] == [*event_schemas()] == [*SHAPE_OF]
    names = [each["post"]["operationId"] for each in document()["webhooks"].values()]
    assert len({*names}) == len(names)
    for type_, schema in event_schemas().items():
        jsonschema_rs.meta.validate(schema)
        assert schema["properties"]["type"] == {"const": type_}


def examples() -> dict[str, CloudEventJson]:
    """An event of each type, as it is pushed."""
    made = [
        *(cloud_event(an_event(word)) for word in EventType),
        *(balance_cloud_event(each) for each in (alarm(), over())),
        dispute_cloud_event(reminder()),
        mismatch_cloud_event(mismatch()),
        *(operator_cloud_event(operator_event(word, "us", "books", "gone", "…", NOW)) for word in OperatorType),
    ]
    return {each.type: each for each in made}


@pytest.mark.parametrize("type_", SHAPE_OF)
def test_a_schema_knows_the_events_of_its_type_alone(type_: str) -> None:
    """The example passes. Under another type, without a member, or with one more, it does not."""
    event = msgspec.to_builtins(examples()[type_])
    judge = jsonschema_rs.Draft202012Validator(event_schemas()[type_], validate_formats=True)
    assert judge.is_valid(event)
    assert event_faults(json.dumps(event)) == []
    assert judge.is_valid({**event, "later": 1}), "a later version may add members"
    wrong: list[dict[str, Any]] = [{**event, "type": "amazonpay.refund.later"}, {**event, "time": "today"}]
    wrong += [{name: value for name, value in event.items() if name != left} for left in event]
    wrong += [{**event, "data": {name: value for name, value in event["data"].items() if name != "account"}}]
    assert [each for each in wrong if judge.is_valid(each)] == []
    assert event_faults(json.dumps({**event, "data": {**event["data"], "later": 1}}))


def test_the_command_writes_them(tmp_path: Path) -> None:
    """One file for each type; a second run writes the same again. A folder that cannot be made is a wrong option."""
    for _ in range(2):
        result = CliRunner().invoke(commands, ["openapi", "--events", str(tmp_path / "events")])
        assert (result.exit_code, result.stdout) == (0, "")
    written = {path.name: json.loads(path.read_text()) for path in (tmp_path / "events").iterdir()}
    assert written == {f"{type_}.json": schema for type_, schema in event_schemas().items()}
    (tmp_path / "file").touch()
    result = CliRunner().invoke(commands, ["openapi", "--events", str(tmp_path / "file" / "events")])
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
