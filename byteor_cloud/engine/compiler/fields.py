"""The kinds of values a plan is made of: each reads one JSON value and describes itself as JSON Schema."""

from __future__ import annotations

import heapq
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints, override

from .diagnostics import MAX_DIAGNOSTICS, Code, Json, Report, nearest, one_of, shown

READ_LIMIT = 16_384
"""Items of a longer list are not looked at: no plan may have as many of anything."""


class Kind[T](ABC):
    """Reads a JSON value: the value when it has the right type, else None; whatever is wrong is reported."""

    @abstractmethod
    def read(self, value: object, pointer: str, report: Report) -> T | None:
        """Read the value at this pointer."""

    @abstractmethod
    def schema(self) -> Json:
        """Describe what ``read`` accepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Kind[str]):
    """A string; one that breaks the pattern is reported and yet returned: later rules can still name it."""

    expected: str
    example: str
    pattern: str
    max_length: int
    mend: Callable[[str], str] | None = None

    @override
    def read(self, value: object, pointer: str, report: Report) -> str | None:
        text = value if isinstance(value, str) else None
        if text is None or len(text) > self.max_length or not re.fullmatch(self.pattern, text):
            example = self.mend(text) if self.mend and text else self.example
            report.add(
                Code.PLAN_SCHEMA,
                pointer,
                f"Expected {self.expected}, not {shown(value)}.",
                f'Write for example "{example}".',
            )
        return text

    @override
    def schema(self) -> Json:
        return {
            "type": "string",
            "description": self.expected,
            "pattern": f"^(?:{self.pattern})$",
            "maxLength": self.max_length,
            "examples": [self.example],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer(Kind[int]):
    """A whole number in a range (``2.0`` is the same JSON number as ``2``); never a boolean."""

    expected: str
    minimum: int
    maximum: int
    code: Code = Code.PLAN_SCHEMA

    @override
    def read(self, value: object, pointer: str, report: Report) -> int | None:
        number = int(value) if isinstance(value, float) and value.is_integer() else value
        if isinstance(number, int) and not isinstance(number, bool) and self.minimum <= number <= self.maximum:
            return number
        bounds = f"a whole number from {self.minimum} to {self.maximum}"
        report.add(
            self.code,
            pointer,
            f"Expected {self.expected}, {bounds}, not {shown(value)}.",
            f"Write {self.minimum}." if self.minimum == self.maximum else f"Write {bounds}, without quotes.",
        )
        return None

    @override
    def schema(self) -> Json:
        return {
            "type": "integer",
            "description": self.expected,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "examples": [self.minimum],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice[T: str](Kind[T]):
    """One of a few strings."""

    expected: str
    options: tuple[T, ...]
    code: Code = Code.PLAN_SCHEMA

    @override
    def read(self, value: object, pointer: str, report: Report) -> T | None:
        if isinstance(value, str):
            for option in self.options:
                if option == value:
                    return option
        guess = nearest(value, self.options) if isinstance(value, str) else None
        choices = one_of([guess] if guess else self.options)
        report.add(
            self.code,
            pointer,
            f"Expected {self.expected} ({one_of(self.options)}), not {shown(value)}.",
            f"Write {choices}.",
        )
        return None

    @override
    def schema(self) -> Json:
        return {"type": "string", "description": self.expected, "enum": list(self.options)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf[T](Kind[tuple[T | None, ...]]):
    """A list; an item that could not be read is None, so that indices stay those of the plan."""

    item: Kind[T]
    expected: str
    hint: str
    minimum: int = 0
    maximum: int = READ_LIMIT
    too_few: Code = Code.PLAN_SCHEMA
    too_many: Code = Code.PLAN_SCHEMA

    @override
    def read(self, value: object, pointer: str, report: Report) -> tuple[T | None, ...] | None:
        if not isinstance(value, list):
            report.add(
                Code.PLAN_SCHEMA,
                pointer,
                f"Expected a list of {self.expected}, not {shown(value)}.",
                self.hint,
            )
            return None
        if len(value) < self.minimum:
            report.add(self.too_few, pointer, f"There are no {self.expected}.", self.hint)
        if len(value) > self.maximum:
            report.add(
                self.too_many,
                pointer,
                f"There are {len(value):,} {self.expected}, more than {self.maximum:,}.",
                f"Leave at most {self.maximum:,} here; split the pipeline in two.",
            )
        if len(value) > READ_LIMIT:
            return None
        items: list[T | None] = []
        for index, item in enumerate(value):
            if report.full:
                return None
            items.append(self.item.read(item, f"{pointer}/{index}", report))
        return tuple(items)

    @override
    def schema(self) -> Json:
        bounds = {"minItems": self.minimum, "maxItems": self.maximum}
        return {"type": "array", "description": self.expected, "items": self.item.schema(), **bounds}


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels(Kind[dict[str, str]]):
    """An object of free keys with short text values."""

    key: Text
    value: Text
    maximum: int

    @override
    def read(self, value: object, pointer: str, report: Report) -> dict[str, str] | None:
        if not isinstance(value, dict) or len(value) > self.maximum:
            got = f"{len(value):,} of them" if isinstance(value, dict) else shown(value)
            report.add(
                Code.PLAN_SCHEMA,
                pointer,
                f"Expected at most {self.maximum} labels, not {got}.",
                f'Write an object such as {{"{self.key.example}": "{self.value.example}"}}.',
            )
            return None
        for key in sorted(value, key=str):
            self.key.read(key, child(pointer, key), report)
            self.value.read(value[key], child(pointer, key), report)
        return value

    @override
    def schema(self) -> Json:
        return {
            "type": "object",
            "description": f"at most {self.maximum} labels",
            "propertyNames": self.key.schema(),
            "additionalProperties": self.value.schema(),
            "maxProperties": self.maximum,
        }


@dataclass(frozen=True, slots=True)
class Deferred[T](Kind[object]):
    """A part of the plan that is only read when it is the target."""

    kind: Kind[T]

    @override
    def read(self, value: object, pointer: str, report: Report) -> object:
        return value

    @override
    def schema(self) -> Json:
        return self.kind.schema()


@dataclass(frozen=True, slots=True)
class Slot:
    """One field of an object, written into its annotation: its kind, and what holds when it is left out."""

    kind: Kind[Any]
    default: object = None
    """Read like a value of the plan."""
    missing: Code | None = None
    name: str | None = None
    """The plan's word for it, where Python reserves that."""


def required(kind: Kind[Any], *, name: str | None = None, missing: Code = Code.PLAN_SCHEMA) -> Slot:
    """Declare a field that must be there."""
    return Slot(kind, name=name, missing=missing)


class Object[T](Kind[T]):
    """An object with the fields that a dataclass annotates with slots, and no other."""

    def __init__(self, record: type[T], expected: str, *, elsewhere: Mapping[str, str] | None = None) -> None:
        self.record = record
        self.expected = expected
        self.elsewhere = elsewhere or {}
        self.slots: dict[str, tuple[str, Slot]] = {}
        for attribute, hint in get_type_hints(record, include_extras=True).items():
            slot: Slot = hint.__metadata__[0]
            self.slots[slot.name or attribute] = (attribute, slot)

    @override
    def read(self, value: object, pointer: str, report: Report) -> T | None:
        if not isinstance(value, dict):
            report.add(
                Code.PLAN_SCHEMA,
                pointer,
                f"Expected {self.expected}, an object, not {shown(value)}.",
                f"Write an object with the fields {', '.join(self.slots)}.",
            )
            return None
        return self.read_members(value, pointer, report)

    def read_members(self, value: dict[str, object], pointer: str, report: Report) -> T:
        """Read the fields of what is known to be an object."""
        read: dict[str, object] = {}
        for name, (attribute, slot) in self.slots.items():
            place = f"{pointer}/{name}"
            if name in value:
                read[attribute] = slot.kind.read(value[name], place, report)
            elif slot.missing:
                read[attribute] = None
                self._report_missing(name, slot, slot.missing, place, report)
            else:
                default = slot.default
                read[attribute] = None if default is None else slot.kind.read(default, place, report)
        self._report_unknown(value, pointer, report)
        return self.record(**read)

    def _report_missing(self, name: str, slot: Slot, code: Code, pointer: str, report: Report) -> None:
        schema = slot.kind.schema()
        options = one_of(schema.get("enum") or schema["examples"])
        report.add(code, pointer, f'The field "{name}" is missing.', f'Add "{name}": {options}.')

    def _report_unknown(self, value: dict[str, object], pointer: str, report: Report) -> None:
        unknown = [key for key in value if key not in self.slots]
        for key in heapq.nsmallest(MAX_DIAGNOSTICS + 1, unknown, key=str):
            name = str(key)
            guess = nearest(name, self.slots)
            if name in self.elsewhere:
                hint = self.elsewhere[name]
            elif guess:
                hint = f'Write "{guess}".'
            else:
                hint = f"Remove it; the fields here are {', '.join(self.slots)}."
            report.add(Code.PLAN_SCHEMA, child(pointer, name), f"{shown(name)} is no field of {self.expected}.", hint)

    @override
    def schema(self) -> Json:
        properties, needed = {}, []
        for name, (_, slot) in self.slots.items():
            properties[name] = slot.kind.schema()
            # An empty list that is too short is no default: leaving it out is refused, with the list's own code.
            if slot.missing or (slot.default == [] and properties[name]["minItems"]):
                needed.append(name)
            elif slot.default is not None:
                properties[name]["default"] = slot.default
        return {
            "type": "object",
            "description": self.expected,
            "properties": properties,
            "required": needed,
            "additionalProperties": False,
        }


def child(pointer: str, key: object) -> str:
    """Point at a member with a free key, or at its object when the key is too odd for a pointer."""
    name = str(key)
    if not name.isprintable() or len(name) > 64:
        return pointer
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
