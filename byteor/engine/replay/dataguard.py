r"""The dataguard ops: they check a payload against a JSON Schema, redact fields of it, or both.

A redaction rule is ``<field>:<action>``. The field is a dotted path, in which ``\.``, ``\:`` and ``\\`` escape these
characters in a name. If the path leads through an array, the rule applies to each element; a missing field is ignored.
Rules apply one after the other. The actions are:

- ``drop`` removes the field;
- ``replace_with=V`` replaces the value with the string V;
- ``hash`` replaces the value with the SHA-256, in hexadecimal, of its canonical JSON;
- ``mask=P:S:C`` keeps the first P and the last S characters, and replaces each character between them with C. A string
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

_NAME = r"(?:[^\\.:]|\\[\\.:])+"
_NUMBER = "[0-9]{1,9}"
RULE_PARTS: Mapping[str, Mapping[str, Any]] = {
    "field": {"title": "Field", "pattern": rf"{_NAME}(?:\.{_NAME})*", "examples": ["customer.name"]},
    "value": {"title": "Replacement", "pattern": ".*", "examples": ["unknown"]},
    "head": {"title": "First characters kept", "pattern": _NUMBER, "examples": ["0"]},
    "tail": {"title": "Last characters kept", "pattern": _NUMBER, "examples": ["4"]},
    "char": {"title": "Character", "pattern": ".", "examples": ["*"]},
    "length": {"title": "Characters kept", "pattern": _NUMBER, "examples": ["8"]},
}
"""The parts of redaction rules, by their names in ``RULE_TEMPLATES``."""
RULE_TEMPLATES = {
    "Remove": "{field}:drop",
    "Replace": "{field}:replace_with={value}",
    "Hash": "{field}:hash",
    "Mask": "{field}:mask={head}:{tail}:{char}",
    "Truncate": "{field}:truncate={length}",
}
"""The forms of a redaction rule, by their titles."""


def _rule_pattern(template: str) -> re.Pattern[str]:
    """Return the pattern of the rules of one form."""
    parts = {name: f"(?P<{name}>{part['pattern']})" for name, part in RULE_PARTS.items()}
    return re.compile(template.format(**parts), re.DOTALL)


_RULES = {title: _rule_pattern(template) for title, template in RULE_TEMPLATES.items()}
_ON_REJECT = ("drop", "stop")
_SCHEMA_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
_FIELD_SCHEMA = {
    "type": "object",
    "title": "Field",
    "properties": {
        "type": {"type": "string", "title": "Type", "enum": _SCHEMA_TYPES},
        "minimum": {"type": "number", "title": "Minimum"},
        "maximum": {"type": "number", "title": "Maximum"},
        "pattern": {"type": "string", "title": "Pattern", "description": "a regular expression"},
    },
}
_PROPERTIES: Mapping[str, Mapping[str, Any]] = {
    "schema": {
        "type": "object",
        "title": "Schema",
        "description": "the JSON Schema (2020-12) to which each payload must conform",
        "properties": {
            "properties": {"type": "object", "title": "Fields", "additionalProperties": _FIELD_SCHEMA},
            "required": {
                "type": "array",
                "title": "Required fields",
                "items": {"type": "string", "title": "Required field"},
            },
        },
        "examples": [
            {
                "properties": {"symbol": {"type": "string"}, "price": {"type": "number", "minimum": 0}},
                "required": ["symbol", "price"],
            }
        ],
    },
    "rules": {
        "type": "array",
        "title": "Rules",
        "description": "the redaction rules, which apply in this order. A dot leads into an object: customer.name",
        "items": {"type": "string", "title": "Rule", "templates": RULE_TEMPLATES, "parts": RULE_PARTS},
        "examples": [["customer.name:replace_with=unknown", "card:mask=0:4:*"]],
    },
    "on_reject": {
        "type": "string",
        "title": "Rejected records",
        "description": "whether a rejected record is dropped and counted, or stops the pipeline",
        "enum": _ON_REJECT,
        "default": "drop",
    },
}
_PARTS = {
    "dataguard_check": ("schema",),
    "dataguard_redact": ("rules",),
    "dataguard_fused": ("schema", "rules"),
}

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


def parameters_schema(op: str) -> dict[str, Any]:
    """Return the JSON Schema of a dataguard op's parameters, with an example.

    The schema of a redaction rule has two keywords of its own: ``templates`` are the forms of a rule, and ``parts`` the
    parts that the templates name in braces.
    """
    parts = _PARTS[op]
    return {
        "type": "object",
        "properties": {key: _PROPERTIES[key] for key in (*parts, "on_reject")},
        "required": parts,
        "additionalProperties": False,
        "examples": [{key: _PROPERTIES[key]["examples"][0] for key in parts}],
    }


def check_params(op: str, params: object) -> list[ParamError]:
    """Return the faults of a dataguard op's parameters. Parameters of other ops are not checked."""
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
    if params.get("on_reject", "drop") not in _ON_REJECT:
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
        if isinstance(text, str) and (match := _match_rule(text)):
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


def _match_rule(text: str) -> re.Match[str] | None:
    return next(filter(None, (pattern.fullmatch(text) for pattern in _RULES.values())), None)


def _change(match: re.Match[str]) -> Callable[[Any], str] | None:
    if match.re is _RULES["Remove"]:
        return None
    if match.re is _RULES["Hash"]:
        return lambda value: hashlib.sha256(encode_payload(value)).hexdigest()
    if match.re is _RULES["Replace"]:
        replacement = match["value"]
        return lambda value: replacement
    if match.re is _RULES["Truncate"]:
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
