"""Pure. Pydantic's errors as sentences for the author of the configuration: key, problem, fix."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo


def sentences(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One sentence per problem, starting with its key, such as `accounts[0].region`. Values are never repeated."""
    found = error.errors(include_url=False, include_input=False)
    return list(dict.fromkeys(_sentence(item, model) for item in found if not _follows(item, found)))


def _follows(item: Any, found: Sequence[Any]) -> bool:
    """Whether the error follows from another one: a default that depends on wrong values, or a list that is too short
    only because its items are wrong."""
    if item["type"] == "default_factory_not_called":
        return True
    depth = len(item["loc"])
    return item["type"] == "too_short" and any(
        other["loc"][:depth] == item["loc"] and len(other["loc"]) > depth for other in found
    )


def _sentence(item: Any, model: type[BaseModel]) -> str:
    path: tuple[int | str, ...] = item["loc"]
    key = key_of(path)
    field = _field_at(model, path)
    about = f" It is {field.description}" if field and field.description else ""
    if item["type"] == "too_short":
        return f"{key}: is empty.{about}"
    if item["type"] == "missing":
        return f"{key}: is missing.{about}"
    if item["type"] == "extra_forbidden":
        return f"{key}: is not a setting. {_suggestion(model, path)}"
    if item["type"] == "value_error":
        return f"{key}: {item['ctx']['error']}"
    fault = str(item["msg"]).replace("Input should", "must").replace("String should", "must").rstrip(".")
    return f"{key}: {fault}.{about}"


def takes_list_or_table(model: type[BaseModel], path: Sequence[str]) -> bool:
    """Whether the setting at `path` is a list or a table; False if there is no such setting."""
    field = _field_at(model, path)
    return field is not None and _is_structured(field.annotation)


def _is_structured(annotation: Any) -> bool:
    origin = get_origin(annotation) or annotation
    if isinstance(origin, type) and issubclass(origin, (BaseModel, dict, list, tuple, frozenset)):
        return True
    return any(_is_structured(part) for part in get_args(annotation))


def key_of(path: Sequence[int | str]) -> str:
    """`("accounts", 0, "region")` as `accounts[0].region`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _suggestion(model: type[BaseModel], path: Sequence[int | str]) -> str:
    inner = _model_at(model, path[:-1])
    known = sorted(inner.model_fields) if inner else []
    near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Known here: {', '.join(known)}." if known else "Remove it."


def _field_at(model: type[BaseModel], path: Sequence[int | str]) -> FieldInfo | None:
    names = [index for index, part in enumerate(path) if isinstance(part, str)]
    if not names:
        return None
    inner = _model_at(model, path[: names[-1]])
    return inner.model_fields.get(str(path[names[-1]])) if inner else None


def _model_at(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel] | None:
    inner: type[BaseModel] | None = model
    for part in path:
        if inner is None or isinstance(part, int):
            continue
        field = inner.model_fields.get(part)
        inner = _model_in(field.annotation) if field else None
    return inner


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
