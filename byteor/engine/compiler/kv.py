"""The canonical KV text of a spec: encoder, decoder and hash. The keys are derived from the spec's types."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .diagnostics import JsonObject, join_options, quote
from .spec import Endpoint, GraphLane, GraphRole, LaneGraph, PipelineSpec, RingStage, SingleRing

_MODELS: dict[str, type[Any]] = {"single_ring": SingleRing, "lane_graph": LaneGraph}
_NAMES = {record: name for name, record in _MODELS.items()}


class KvError(ValueError):
    """Raised for text that is not a spec. ``line`` is the number of the faulty line, from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line
        self.message = message


def encode(spec: PipelineSpec) -> str:
    """Write a spec as canonical KV text. Equal specs have equal texts, on every platform."""
    model = _NAMES[type(spec.model)]
    head = f"spec.v=1\nspec.model={model}\nspec.name={spec.name}\n"
    return head + "".join(f"{line}\n" for line in _lines(model, spec.model))


def decode(kv: str | bytes) -> PipelineSpec:
    """Read KV text, ignoring unknown keys. Raises KvError.

    Only the shape and the types of the spec are checked; use ``validate_spec`` to check the rules.
    """
    reader = _Reader(kv if isinstance(kv, str) else kv.decode("latin-1"))
    reader.scalar("spec.v", ("1",), 0)
    model = reader.scalar("spec.model", tuple(_MODELS), 0)
    name = reader.scalar("spec.name", str, 0)
    return PipelineSpec(name, reader.record(_MODELS[model], model, 0))


def spec_hash(kv: str) -> str:
    """Return the hash of canonical KV text as ``sha256:<hex>``."""
    return f"sha256:{hashlib.sha256(kv.encode()).hexdigest()}"


def spec_to_json(spec: PipelineSpec) -> JsonObject:
    """Return a spec as JSON data, nested like the KV keys: ``single_ring.shards`` is at ``/single_ring/shards``.

    The members whose keys begin with ``spec.`` are at the top: ``spec.name`` is at ``/name``.
    """
    model = _NAMES[type(spec.model)]
    return {"v": 1, "model": model, "name": spec.name, model: _plain(spec.model)}


def stages_in(document: JsonObject) -> tuple[tuple[str, str], ...]:
    """Return the id and op of every stage of a spec from ``spec_to_json``, in the order of ``PipelineSpec.stages``."""
    model = document[document["model"]]
    if document["model"] == "single_ring":
        return tuple((stage["id"], stage["op"]) for stage in model["stages"])
    return tuple((role["name"], role.get("op", "")) for role in model["roles"] if role["kind"] == "stage")


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a record. ``accepts`` is the type of its value or items, or a tuple of permitted strings."""

    accepts: Any
    is_optional: bool
    is_repeated: bool


def _fields(record: Any) -> dict[str, _Field]:
    """Return the fields of a record in the order of the KV text."""
    hints = get_type_hints(record)
    # In the KV text, the op and the policy of a role come before its lanes.
    order = ("name", "kind", "op", "policy", "rx", "tx") if record is GraphRole else tuple(hints)
    return {name: _field(hints[name]) for name in order}


def _field(hint: Any) -> _Field:
    options = get_args(hint)
    is_optional = NoneType in options
    if is_optional:
        hint = options[0]
    is_repeated = get_origin(hint) is tuple
    if is_repeated:
        hint = get_args(hint)[0]
    return _Field(get_args(hint) if get_origin(hint) is Literal else hint, is_optional, is_repeated)


_RECORDS: dict[Any, dict[str, _Field]] = {
    record: _fields(record) for record in (SingleRing, RingStage, LaneGraph, GraphLane, Endpoint, GraphRole)
}


def _lines(prefix: str, value: Any) -> Iterator[str]:
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _lines(f"{prefix}.{index}", item)
    elif type(value) in _RECORDS:
        for name in _RECORDS[type(value)]:
            yield from _lines(f"{prefix}.{name}", getattr(value, name))
    elif value is not None:
        yield f"{prefix}={value}"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if type(value) in _RECORDS:
        members = {name: getattr(value, name) for name in _RECORDS[type(value)]}
        return {name: _plain(member) for name, member in members.items() if member is not None}
    return value


def _shapes(prefix: str, record: Any) -> Iterator[str]:
    """Yield the keys of a record, with each index replaced by ``#``."""
    for name, field in _RECORDS[record].items():
        key = f"{prefix}.{name}.#" if field.is_repeated else f"{prefix}.{name}"
        if field.accepts in _RECORDS:
            yield from _shapes(key, field.accepts)
        else:
            yield key


_SHAPES = {"spec.v", "spec.model", "spec.name"}.union(*(_shapes(*model) for model in _MODELS.items()))
_LINE = re.compile(r"([A-Za-z0-9_-]++(?:\.[A-Za-z0-9_-]++)*+)=((?! )[\x20-\x7e]*+)")
_INDEX = re.compile(r"\.(0|[1-9][0-9]{0,8})(?=\.|$)")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


class _Reader:
    """The parsed text: the line and value of each known key, and for each list the first line of each index."""

    def __init__(self, text: str) -> None:
        self.values: dict[str, tuple[int, str]] = {}
        self.indices: dict[str, dict[int, int]] = {}
        seen: set[str] = set()
        lines = text.split("\n")
        self.last = max(1, len(lines) - 1)
        if lines.pop():
            raise KvError(len(lines) + 1, "the text must end with a newline")
        for number, line in enumerate(lines, 1):
            match = _LINE.fullmatch(line)
            if match is None:
                raise KvError(
                    number,
                    "expected key=value in printable ASCII, without spaces around the =; a key consists of letters, "
                    "digits, _ and -, with single dots between them",
                )
            key, value = match.groups()
            if key in seen:
                raise KvError(number, f"the key {quote(key)} occurs twice")
            seen.add(key)
            if _INDEX.sub(".#", key) in _SHAPES:
                self.values[key] = number, value
                for index in _INDEX.finditer(key):
                    group = self.indices.setdefault(key[: index.start()], {})
                    group.setdefault(int(index[1]), number)

    def scalar(self, key: str, accepts: Any, line: int) -> Any:
        """Read one value. Raises KvError.

        The error for a missing value names ``line``, or the last line of the text if ``line`` is 0.
        """
        if key not in self.values:
            raise KvError(line or self.last, f"the key {key} is missing")
        number, value = self.values[key]
        if accepts is str:
            return value
        if accepts is int:
            if not _NUMBER.fullmatch(value):
                raise KvError(
                    number,
                    f"{key} must be a whole number from 0 to 999999999, without leading zeros, not {quote(value)}",
                )
            return int(value)
        if value not in accepts:
            raise KvError(number, f"{key} must be {join_options(accepts)}, not {quote(value)}")
        return value

    def record(self, record: Any, prefix: str, line: int) -> Any:
        """Read the record whose keys begin with ``prefix``; ``line`` is the line where it begins, or 0."""
        values: dict[str, Any] = {}
        for name, field in _RECORDS[record].items():
            key = f"{prefix}.{name}"
            if field.is_repeated:
                values[name] = tuple(self._items(field.accepts, key))
            elif field.is_optional and key not in self.values:
                values[name] = None
            else:
                values[name] = self.scalar(key, field.accepts, line)
        return record(**values)

    def _items(self, accepts: Any, prefix: str) -> Iterator[Any]:
        for expected, (index, line) in enumerate(sorted(self.indices.get(prefix, {}).items())):
            if index != expected:
                raise KvError(line, f"{prefix}.{expected} is missing: the indices have a gap before {index}")
            if accepts in _RECORDS:
                yield self.record(accepts, f"{prefix}.{index}", line)
            else:
                yield self.scalar(f"{prefix}.{index}", accepts, line)
