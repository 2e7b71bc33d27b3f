r"""The dataguard ops: they check a payload against a JSON Schema, redact fields of it, or both.

A redaction rule is ``<field>:<action>``. The field is a dotted path, in which ``\.``, ``\:`` and ``\\`` escape these
characters in a name. If the path leads through an array, the rule applies to each element; a missing field is ignored.
Rules apply one after the other. The actions are:

- ``drop`` removes the field;
- ``replace_with=V`` replaces the value with the string V;
- ``hash`` replaces the value with the SHA-256, in hexadecimal, of its canonical JSON;
- ``mask=P:S:C`` keeps the first P and the last S characters, and replaces the characters between them with C. A string
  of at most P + S characters is masked entirely, because otherwise none of its characters would be masked;
- ``truncate=N`` keeps the first N characters.

``mask`` and ``truncate`` count code points. A value that is not a string is treated as its canonical JSON text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from byteor.engine.replay.payload import DropReason, MalformedPayload, Message, count_nodes, encode_payload
from byteor.engine.replay.schema import BadSchema, PayloadSchema
from byteor.engine.replay.work import WorkMeter
from byteor.engine.strict_json import pointer_of

OPS = frozenset({"dataguard_check", "dataguard_redact", "dataguard_fused"})
MAX_PARAMS_BYTES = 64 * 1024

_PARTS = {
    "dataguard_check": ("schema",),
    "dataguard_redact": ("rules",),
    "dataguard_fused": ("schema", "rules"),
}
_NAME = r"(?:[^\\.:]|\\[\\.:])+"
_RULE = re.compile(
    rf"(?P<field>{_NAME}(?:\.{_NAME})*):"
    r"(?:(?P<plain>drop|hash)|replace_with=(?P<value>.*)|truncate=(?P<length>[0-9]{1,9})"
    r"|mask=(?P<head>[0-9]{1,9}):(?P<tail>[0-9]{1,9}):(?P<char>.))",
    re.DOTALL,
)

type Guard = Callable[[Message], Message | DropReason]
"""A function that returns the new message, or why it drops the record. Exceptions stop the pipeline."""


class PayloadRejected(Exception):
    """Raised when a stage with ``on_reject: stop`` rejects a payload."""


@dataclass(frozen=True, slots=True)
class ParamError:
    """One fault of an op's parameters: a JSON Pointer into them, a stable code and a message."""

    pointer: str
    code: str
    detail: str


class BadParams(ValueError):
    """Raised for invalid parameters of an op. ``errors`` are their faults."""

    def __init__(self, errors: list[ParamError]) -> None:
        super().__init__("; ".join(f"{error.pointer or '/'}: {error.detail}" for error in errors))
        self.errors = errors


def check_params(op: str, params: object) -> list[ParamError]:
    """Return the faults of a stage's parameters. Ops other than the dataguard ops accept any parameters."""
    if op not in OPS or params is None:
        return []
    try:
        build_guard(op, params)
    except BadParams as error:
        return error.errors
    return []


def build_guard(op: str, params: object, work: WorkMeter | None = None) -> Guard | None:
    """Create the function of a dataguard op, which counts its work in ``work``. Raises BadParams.

    Returns None without parameters (None or empty), because the op then passes every record unchanged.
    """
    work = work or WorkMeter()
    if params is None or params == {}:
        return None
    schema, rules, stop = _read_params(op, params)

    def guard(message: Message) -> Message | DropReason:
        try:
            if schema is None:
                work.spend_bytes(message.payload)
            value = message.value()
            if type(value) is not dict:
                raise MalformedPayload(DropReason.NOT_OBJECT, "not a JSON object")
            if schema is not None:
                work.spend(schema.keywords * count_nodes(value))
                if not schema.accepts(value):
                    raise MalformedPayload(DropReason.SCHEMA, "does not conform to the schema")
            if rules is None:
                return message
            for rule in rules:
                value = _redacted(value, rule.path, rule.change, work)
            return Message(encode_payload(value), value)
        except MalformedPayload as error:
            if stop:
                raise PayloadRejected(f"payload rejected: {error}") from None
            return error.reason

    return guard


@dataclass(frozen=True, slots=True)
class _Rule:
    path: tuple[str, ...]
    change: Callable[[Any], str] | None  # None if the field is dropped


def _read_params(op: str, params: object) -> tuple[PayloadSchema | None, list[_Rule] | None, bool]:
    """Return the schema and the rules (None if the op has none), and whether a rejection stops the pipeline."""
    if not isinstance(params, Mapping):
        raise BadParams([ParamError("", "params.type", "must be an object")])
    try:
        size = len(encode_payload(dict(params)))
    except MalformedPayload as error:
        raise BadParams([ParamError("", "params.json", str(error))]) from None
    if size > MAX_PARAMS_BYTES:
        raise BadParams([ParamError("", "params.too_large", f"longer than {MAX_PARAMS_BYTES} bytes as JSON")])
    parts = _PARTS[op]
    errors = [
        ParamError(pointer_of([key]), "params.unknown", f"is not a parameter of {op}")
        for key in sorted(params.keys() - {*parts, "on_reject"})
    ]
    errors += [ParamError(f"/{key}", "params.required", "is required") for key in parts if key not in params]
    if params.get("on_reject", "drop") not in ("drop", "stop"):
        errors.append(ParamError("/on_reject", "params.choice", "must be drop or stop"))
    schema = None
    if "schema" in parts and "schema" in params:
        try:
            schema = PayloadSchema(params["schema"])
        except BadSchema as error:
            errors += [ParamError(f"/schema{fault.pointer}", fault.code, fault.detail) for fault in error.errors]
    rules = None
    if "rules" in parts and "rules" in params:
        rules = _read_rules(params["rules"], errors)
    if errors:
        raise BadParams(errors)
    return schema, rules, params.get("on_reject") == "stop"


def _read_rules(texts: object, errors: list[ParamError]) -> list[_Rule]:
    if not isinstance(texts, list):
        errors.append(ParamError("/rules", "params.type", "must be a list of rules"))
        return []
    rules = []
    for index, text in enumerate(texts):
        if isinstance(text, str) and (match := _RULE.fullmatch(text)):
            names = re.findall(_NAME, match["field"])
            path = tuple(re.sub(r"\\(.)", r"\1", name) for name in names)
            rules.append(_Rule(path, _change(match)))
        else:
            detail = (
                "must be <field>:drop, <field>:replace_with=V, <field>:hash, <field>:mask=P:S:C with a single "
                "character C, or <field>:truncate=N"
            )
            errors.append(ParamError(f"/rules/{index}", "rule.invalid", detail))
    return rules


def _change(match: re.Match[str]) -> Callable[[Any], str] | None:
    if match["plain"] == "drop":
        return None
    if match["plain"] == "hash":
        return lambda value: hashlib.sha256(encode_payload(value)).hexdigest()
    if (replacement := match["value"]) is not None:
        return lambda value: replacement
    if match["length"]:
        length = int(match["length"])
        return lambda value: _text(value)[:length]
    head, tail, char = int(match["head"]), int(match["tail"]), match["char"]

    def mask(value: object) -> str:
        text = _text(value)
        hidden = len(text) - head - tail
        if hidden <= 0:
            return char * len(text)
        return text[:head] + char * hidden + text[len(text) - tail :]

    return mask


def _text(value: object) -> str:
    return value if isinstance(value, str) else encode_payload(value).decode()


def _redacted(node: Any, path: tuple[str, ...], change: Callable[[Any], str] | None, work: WorkMeter) -> Any:
    """Return a copy of the node with a field changed. The node is not modified, because other stages may read it."""
    if isinstance(node, list):
        work.spend(len(node))
        return [_redacted(item, path, change, work) for item in node]
    if not isinstance(node, dict) or (name := path[0]) not in node:
        return node
    changed = node.copy()
    if path[1:]:
        changed[name] = _redacted(node[name], path[1:], change, work)
    elif change is None:
        del changed[name]
    else:
        changed[name] = change(node[name])
    return changed
