"""A slow and simple model of a replay, which is written from the documented rules and not from the engine's code.

It works on the plan and has no lanes, routers or merges. A record passes through the nodes of the plan, and a node with
several incoming connections takes their records in turn.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from jsonschema import Draft202012Validator

from byteor.engine.replay import Record

type Plan = Mapping[str, Any]


class Stopped(Exception):
    """Raised when a stage stops the pipeline."""


class Dropped(Exception):
    """Raised for a payload that a dataguard op rejects. The message is the reason."""


@dataclass
class Modelled:
    """The expected result of a replay."""

    frames: dict[str, list[tuple[int, bytes]]]
    stages: dict[str, dict[str, Any]]
    actions: list[str] = field(default_factory=list)
    stop: tuple[str, int, str] | None = None


def merged(plan: Plan, journals: Mapping[str, Sequence[Record]]) -> list[tuple[str, Record]]:
    """Return the records of all journals with their ingresses, in the order in which they are replayed."""
    keyed = []
    for endpoint, name in enumerate(ingresses(plan)):
        highest = 0
        in_order = sorted(journals.get(name, ()), key=lambda record: record.sequence)
        for position, record in enumerate(in_order):
            highest = max(highest, record.unix_ns)
            keyed.append(((highest, endpoint, position), name, record))
    return [(name, record) for _, name, record in sorted(keyed, key=lambda each: each[0])]


def ingresses(plan: Plan) -> list[str]:
    body = plan[plan["target"]]
    return [body["ingress"]] if isinstance(body["ingress"], str) else list(body["ingress"])


def run(plan: Plan, config: Mapping[str, Any], records: Sequence[tuple[str, Record]]) -> Modelled:
    """Run records through a plan."""
    body = plan[plan["target"]]
    egresses = [body["egress"]] if isinstance(body["egress"], str) else body["egress"]
    stages = {stage["id"]: {"in": 0, "out": 0, "dropped": 0, "errors": 0, "drops": {}} for stage in _in_order(body)}
    found = Modelled({name: [] for name in egresses}, stages)
    is_named = len(ingresses(plan)) > 1
    for ingress, record in records:
        try:
            outputs = _through(body, config, ingress, record, found, ingress if is_named else None)
        except Stopped as error:
            found.stop = (str(error), record.sequence, ingress)
            return found
        for egress in egresses:
            found.frames[egress] += [(record.sequence, payload) for payload in outputs[egress]]
    return found


def _through(
    body: Mapping[str, Any], config: Mapping[str, Any], ingress: str, record: Record, found: Modelled, named: str | None
) -> dict[str, list[bytes]]:
    """Process one record, count it in ``found``, and return the payloads that reach each egress."""
    pairs = connections(body)
    left: dict[str, list[bytes]] = {ingress: [record.payload]}
    for stage in _in_order(body):
        arrived = _in_turn([left.get(source, []) for source, target in pairs if target == stage["id"]])
        counts = found.stages[stage["id"]]
        left[stage["id"]] = []
        for payload in arrived:
            counts["in"] += 1
            try:
                result = apply(stage["op"], config.get(stage["id"]), payload)
            except Dropped as drop:
                counts["dropped"] += 1
                seen = counts["drops"].setdefault(str(drop), {"count": 0, "first_sequence": record.sequence})
                if named and not seen["count"]:
                    seen["ingress"] = named
                seen["count"] += 1
                continue
            except Stopped:
                counts["errors"] += 1
                raise Stopped(stage["id"]) from None
            if stage["op"].startswith(("http_post", "exec")):
                found.actions.append(stage["id"])
            counts["out"] += 1
            left[stage["id"]].append(result)
    egresses = [body["egress"]] if isinstance(body["egress"], str) else body["egress"]
    return {
        egress: _in_turn([left.get(source, []) for source, target in pairs if target == egress]) for egress in egresses
    }


def connections(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "connections" in body:
        return [(each["from"], each["to"]) for each in body["connections"]]
    names = [body["ingress"], *(stage["id"] for stage in body["stages"]), body["egress"]]
    return list(itertools.pairwise(names))


def _in_order(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the stages in topological order. Each step takes the first stage whose source stages are placed."""
    ids = {stage["id"] for stage in body["stages"]}
    placed: list[Mapping[str, Any]] = []
    while len(placed) < len(ids):
        done = {stage["id"] for stage in placed}
        for stage in body["stages"]:
            sources = {source for source, target in connections(body) if target == stage["id"]}
            if stage["id"] not in done and sources & ids <= done:
                placed.append(stage)
                break
    return placed


def _in_turn(lanes: list[list[bytes]]) -> list[bytes]:
    longest = max(map(len, lanes), default=0)
    return [lane[at] for at in range(longest) for lane in lanes if at < len(lane)]


def apply(op: str, params: Mapping[str, Any] | None, payload: bytes) -> bytes:
    """Apply an op to a payload and return the result. Raises Dropped or Stopped."""
    if not op.startswith("dataguard") or not params:
        return payload
    try:
        value = parsed(payload)
        if not isinstance(value, dict):
            raise Dropped("not_object")
        if "schema" in params and not Draft202012Validator(_schema(params["schema"])).is_valid(value):
            raise Dropped("schema")
        if "rules" not in params:
            return payload
        for rule in params["rules"]:
            path, action = rule.split(":", 1)
            _redact(value, path.split("."), action)
        return _canonical(value)
    except Dropped:
        if params.get("on_reject") == "stop":
            raise Stopped from None
        raise


def _exact(text: str) -> int | Decimal:
    number = Decimal(text)
    return int(number) if number == int(number) else number


def parsed(payload: bytes) -> Any:
    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise Dropped("duplicate_name")
        return dict(pairs)

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return json.loads(payload, object_pairs_hook=members, parse_float=_exact, parse_constant=refuse)
    except ValueError:
        raise Dropped("not_json") from None


def _schema(schema: Any) -> Any:
    return json.loads(json.dumps(schema), parse_float=_exact)


def _redact(value: Any, path: Sequence[str], action: str) -> None:
    if isinstance(value, list):
        for item in value:
            _redact(item, path, action)
    elif isinstance(value, dict) and path[0] in value:
        if len(path) > 1:
            _redact(value[path[0]], path[1:], action)
        elif action == "drop":
            del value[path[0]]
        elif action == "hash":
            value[path[0]] = hashlib.sha256(_canonical(value[path[0]])).hexdigest()
        else:
            value[path[0]] = action.removeprefix("replace_with=")


def _canonical(value: object) -> bytes:
    """Return canonical JSON for the values in the tests, which have short fractions and ASCII keys."""

    def exact(number: object) -> float | int:
        assert isinstance(number, Decimal)
        double = float(number)
        if Decimal(repr(double)) != number:
            raise Dropped("not_canonical")
        return int(double) if double == int(double) else double

    def numbers(node: Any) -> Iterator[int]:
        if isinstance(node, dict | list):
            for item in node.values() if isinstance(node, dict) else node:
                yield from numbers(item)
        elif type(node) is int:
            yield node

    if any(int(float(number)) != number for number in numbers(value)):
        raise Dropped("not_canonical")
    whole: Callable[[object], Any] = exact
    return json.dumps(value, default=whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
