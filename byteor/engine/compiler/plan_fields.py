"""The value types of a plan. Each type reads a JSON value, and describes the valid values as JSON Schema."""

from __future__ import annotations

import heapq
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints, override

from .diagnostics import MAX_DIAGNOSTICS, Code, CompileReport, JsonObject, join_options, nearest_word, quote

READ_LIMIT = 16_384
"""The maximum length of a list whose items are read. No list in a valid plan is longer."""


class ValueType[T](ABC):
    """The type of a JSON value. ``read`` reports problems, and returns None for a value that cannot be used."""

    @abstractmethod
    def read(self, value: object, pointer: str, report: CompileReport) -> T | None:
        """Read a value. ``pointer`` is its JSON Pointer in the plan."""

    @abstractmethod
    def schema(self) -> JsonObject:
        """Return the JSON Schema of the valid values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanText(ValueType[str]):
    """A string. An invalid string is reported but still returned, so that later rules can name it.

    ``suggest`` turns an invalid string into a valid one for the hint.
    """

    expected: str
    example: str
    pattern: str
    max_length: int
    suggest: Callable[[str], str] | None = None

    @override
    def read(self, value: object, pointer: str, report: CompileReport) -> str | None:
        text = value if isinstance(value, str) else None
        if text is None or len(text) > self.max_length or not re.fullmatch(self.pattern, text):
            example = self.suggest(text) if self.suggest and text else self.example
            report.add(
                Code.PLAN_SCHEMA,
                pointer,
                f"Expected {self.expected}, not {quote(value)}.",
                f'Write, for example, "{example}".',
            )
        return text

    @override
    def schema(self) -> JsonObject:
        return {
            "type": "string",
            "description": self.expected,
            "pattern": f"^(?:{self.pattern})$",
            "maxLength": self.max_length,
            "examples": [self.example],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer(ValueType[int]):
    """A whole number in a range, but not a boolean. ``2.0`` is accepted, because JSON has no integer type."""

    expected: str
    minimum: int
    maximum: int
    code: Code = Code.PLAN_SCHEMA

    @override
    def read(self, value: object, pointer: str, report: CompileReport) -> int | None:
        number = int(value) if isinstance(value, float) and value.is_integer() else value
        if isinstance(number, int) and not isinstance(number, bool) and self.minimum <= number <= self.maximum:
            return number
        is_fixed = self.minimum == self.maximum
        bounds = f"a whole number from {self.minimum} to {self.maximum}"
        report.add(
            self.code,
            pointer,
            f"Expected {self.expected}, {f'which is {self.minimum}' if is_fixed else bounds}, not {quote(value)}.",
            f"Write {self.minimum}." if is_fixed else f"Write {bounds}, without quotes.",
        )
        return None

    @override
    def schema(self) -> JsonObject:
        return {
            "type": "integer",
            "description": self.expected,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "examples": [self.minimum],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice[T: str](ValueType[T]):
    """One of a fixed set of strings."""

    expected: str
    options: tuple[T, ...]
    code: Code = Code.PLAN_SCHEMA

    @override
    def read(self, value: object, pointer: str, report: CompileReport) -> T | None:
        if isinstance(value, str):
            for option in self.options:
                if option == value:
                    return option
        guess = nearest_word(value, self.options) if isinstance(value, str) else None
        choices = join_options([guess] if guess else self.options)
        report.add(
            self.code,
            pointer,
            f"Expected {self.expected} ({join_options(self.options)}), not {quote(value)}.",
            f"Write {choices}.",
        )
        return None

    @override
    def schema(self) -> JsonObject:
        return {"type": "string", "description": self.expected, "enum": list(self.options)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf[T](ValueType[tuple[T | None, ...]]):
    """A list. An item that could not be read becomes None, so that the other items keep their indices."""

    item: ValueType[T]
    expected: str
    hint: str
    minimum: int = 0
    maximum: int = READ_LIMIT
    too_few: Code = Code.PLAN_SCHEMA
    too_many: Code = Code.PLAN_SCHEMA

    @override
    def read(self, value: object, pointer: str, report: CompileReport) -> tuple[T | None, ...] | None:
        if not isinstance(value, list):
            report.add(
                Code.PLAN_SCHEMA,
                pointer,
                f"Expected a list of {self.expected}, not {quote(value)}.",
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
                f"Keep at most {self.maximum:,}; split a larger pipeline in two.",
            )
        if len(value) > READ_LIMIT:
            return None
        items: list[T | None] = []
        for index, item in enumerate(value):
            if report.is_full:
                return None
            items.append(self.item.read(item, f"{pointer}/{index}", report))
        return tuple(items)

    @override
    def schema(self) -> JsonObject:
        bounds = {"minItems": self.minimum, "maxItems": self.maximum}
        return {"type": "array", "description": self.expected, "items": self.item.schema(), **bounds}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLabels(ValueType[dict[str, str]]):
    """An object of labels, with strings as keys and values. The length and characters of each string are limited."""

    key: PlanText
    value: PlanText
    maximum: int

    @override
    def read(self, value: object, pointer: str, report: CompileReport) -> dict[str, str] | None:
        if not isinstance(value, dict) or len(value) > self.maximum:
            got = f"{len(value):,} labels" if isinstance(value, dict) else quote(value)
            report.add(
                Code.PLAN_SCHEMA,
                pointer,
                f"Expected an object with at most {self.maximum} labels, not {got}.",
                f'Write an object such as {{"{self.key.example}": "{self.value.example}"}}.',
            )
            return None
        for key in sorted(value, key=str):
            self.key.read(key, member_pointer(pointer, key), report)
            self.value.read(value[key], member_pointer(pointer, key), report)
        return value

    @override
    def schema(self) -> JsonObject:
        return {
            "type": "object",
            "description": f"at most {self.maximum} labels",
            "propertyNames": self.key.schema(),
            "additionalProperties": self.value.schema(),
            "maxProperties": self.maximum,
        }


@dataclass(frozen=True, slots=True)
class Deferred[T](ValueType[object]):
    """A part of the plan that is read later, when the target is known."""

    value_type: ValueType[T]

    @override
    def read(self, value: object, pointer: str, report: CompileReport) -> object:
        return value

    @override
    def schema(self) -> JsonObject:
        return self.value_type.schema()


@dataclass(frozen=True, slots=True)
class PlanField:
    """The annotation of a dataclass field, which describes the plan's field: its type, default and name.

    ``missing`` is the diagnostic code for a field that is left out. If it is None, ``default`` is read instead.
    """

    value_type: ValueType[Any]
    default: object = None
    """The JSON value that is read if the field is left out. If it is None, the attribute is then None."""
    missing: Code | None = None
    name: str | None = None
    """The field's name in the plan, if it is not the attribute's name: ``from`` is reserved in Python."""


def required(value_type: ValueType[Any], *, name: str | None = None, missing: Code = Code.PLAN_SCHEMA) -> PlanField:
    """Declare a required field."""
    return PlanField(value_type, name=name, missing=missing)


class Object[T](ValueType[T]):
    """An object that is read into a dataclass. It may have only the fields that the dataclass annotates.

    ``misplaced`` has a hint for each field that authors often put here by mistake.
    """

    def __init__(self, record: type[T], expected: str, *, misplaced: Mapping[str, str] | None = None) -> None:
        self.record = record
        self.expected = expected
        self.misplaced = misplaced or {}
        self.fields: dict[str, tuple[str, PlanField]] = {}
        for attribute, hint in get_type_hints(record, include_extras=True).items():
            field: PlanField = hint.__metadata__[0]
            self.fields[field.name or attribute] = (attribute, field)

    @override
    def read(self, value: object, pointer: str, report: CompileReport) -> T | None:
        if not isinstance(value, dict):
            report.add(
                Code.PLAN_SCHEMA,
                pointer,
                f"Expected {self.expected}, an object, not {quote(value)}.",
                f"Write an object; the permitted fields are {', '.join(self.fields)}.",
            )
            return None
        return self.read_members(value, pointer, report)

    def read_members(self, value: dict[str, object], pointer: str, report: CompileReport) -> T:
        """Read the fields of a JSON object."""
        members: dict[str, object] = {}
        for name, (attribute, field) in self.fields.items():
            member_pointer = f"{pointer}/{name}"
            if name in value:
                members[attribute] = field.value_type.read(value[name], member_pointer, report)
            elif field.missing:
                members[attribute] = None
                self._report_missing(name, field, field.missing, member_pointer, report)
            else:
                default = field.default
                members[attribute] = None if default is None else field.value_type.read(default, member_pointer, report)
        self._report_unknown(value, pointer, report)
        return self.record(**members)

    def _report_missing(self, name: str, field: PlanField, code: Code, pointer: str, report: CompileReport) -> None:
        schema = field.value_type.schema()
        options = join_options(schema.get("enum") or schema["examples"])
        value = f", for example {options}" if isinstance(field.value_type, PlanText) else f": {options}"
        report.add(code, pointer, f'The field "{name}" is missing.', f'Add "{name}"{value}.')

    def _report_unknown(self, value: dict[str, object], pointer: str, report: CompileReport) -> None:
        unknown = [key for key in value if key not in self.fields]
        for key in heapq.nsmallest(MAX_DIAGNOSTICS + 1, unknown, key=str):
            name = str(key)
            guess = nearest_word(name, self.fields)
            if name in self.misplaced:
                hint = self.misplaced[name]
            elif guess:
                hint = f'Write "{guess}".'
            else:
                hint = f"Remove it; the permitted fields are {', '.join(self.fields)}."
            message = f"{quote(name)} is not a field of {self.expected}."
            report.add(Code.PLAN_SCHEMA, member_pointer(pointer, name), message, hint)

    @override
    def schema(self) -> JsonObject:
        properties, required_names = {}, []
        for name, (_, field) in self.fields.items():
            properties[name] = field.value_type.schema()
            # A list with a minimum length is required as well, although it has a default. If it is left out, the empty
            # default is reported as a list that is too short.
            if field.missing or (field.default == [] and properties[name]["minItems"]):
                required_names.append(name)
            elif field.default is not None:
                properties[name]["default"] = field.default
        return {
            "type": "object",
            "description": self.expected,
            "properties": properties,
            "required": required_names,
            "additionalProperties": False,
        }


def member_pointer(pointer: str, key: object) -> str:
    """Return the pointer of a member with an arbitrary key, or of its object if the key is long or unprintable."""
    name = str(key)
    if not name.isprintable() or len(name) > 64:
        return pointer
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
