r"""The dataguard ops: check a payload against a JSON Schema, redact fields of it, or both.

A redaction rule is ``<field>:<action>``. The field is a dotted path; ``\.``, ``\:`` and ``\\`` stand for
these characters in a name. An array on the way is walked element by element, a field that is not there
is passed over, and rules apply in their order. Actions, on the value found:

- ``drop`` removes it; ``replace_with=V`` puts the string V in its place;
- ``hash`` puts the SHA-256 hex of its canonical JSON in its place;
- ``mask=P:S:C`` keeps P leading and S trailing characters and writes the character C for each between; a
  text of at most P + S characters is masked whole, as else nothing of it would be;
- ``truncate=N`` keeps the first N characters.

``mask`` and ``truncate`` count code points, and treat a value that is no string as its canonical JSON text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from byteor_cloud.engine.replay.payload import Malformed, canonical, count_nodes, parse
from byteor_cloud.engine.replay.schema import BadSchema, Schema
from byteor_cloud.engine.replay.work import Work
from byteor_cloud.engine.strict_json import pointer_of

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

type Guard = Callable[[bytes], bytes | None]
"""Takes a payload; gives what goes on, ``None`` when it is dropped, ``Rejected`` when the stage stops."""


class Rejected(Exception):
    """A payload was rejected, and the stage's ``on_reject`` is ``stop``."""


@dataclass(frozen=True, slots=True)
class ParamError:
    """One fault of an op's parameters: a JSON pointer into them, a code, what is wrong."""

    pointer: str
    code: str
    detail: str


class BadParams(ValueError):
    """Parameters that an op cannot run with; ``errors`` says all that is wrong with them."""

    def __init__(self, errors: list[ParamError]) -> None:
        super().__init__("; ".join(f"{error.pointer or '/'}: {error.detail}" for error in errors))
        self.errors = errors


def check_params(op: str, params: object) -> list[ParamError]:
    """What is wrong with a stage's parameters, all at once; ops other than dataguard's take any."""
    if op not in OPS or params is None:
        return []
    try:
        build(op, params)
    except BadParams as error:
        return error.errors
    return []


def build(op: str, params: object, work: Work | None = None) -> Guard:
    """Make the function of a dataguard op; ``BadParams`` when it cannot run so. ``None`` passes all through.

    What it does is counted as ``work``. Not for use by several threads at once.
    """
    work = work or Work()
    if params is None:
        return partial(_pass_through, work=work)
    schema, rules, stop = _read_params(op, params)

    def guard(payload: bytes) -> bytes | None:
        try:
            if schema is None:
                work.spend_bytes(payload)
            value = parse(payload)
            if not isinstance(value, dict):
                raise Malformed("no JSON object")
            if schema is not None:
                work.spend(schema.keywords * count_nodes(value))
                if not schema.accepts(value):
                    raise Malformed("does not conform to the schema")
            if rules is None:
                return payload
            for rule in rules:
                _redact(value, rule.path, rule.change, work)
            return canonical(value)
        except Malformed as error:
            if stop:
                raise Rejected(f"payload rejected: {error}") from None
            return None

    return guard


def _pass_through(payload: bytes, work: Work) -> bytes:
    work.spend_bytes(payload)
    return payload


@dataclass(frozen=True, slots=True)
class _Rule:
    path: tuple[str, ...]
    change: Callable[[Any], str] | None  # None drops the field


def _read_params(op: str, params: object) -> tuple[Schema | None, list[_Rule] | None, bool]:
    """The schema, the rules (``None`` when the op has none), and whether a rejection stops the stage."""
    if not isinstance(params, Mapping):
        raise BadParams([ParamError("", "params.type", "must be an object")])
    try:
        size = len(canonical(dict(params)))
    except Malformed as error:
        raise BadParams([ParamError("", "params.json", str(error))]) from None
    if size > MAX_PARAMS_BYTES:
        raise BadParams([ParamError("", "params.too_large", f"over {MAX_PARAMS_BYTES} bytes of JSON")])
    parts = _PARTS[op]
    errors = [
        ParamError(pointer_of([key]), "params.unknown", f"{op} has no such parameter")
        for key in sorted(params.keys() - {*parts, "on_reject"})
    ]
    errors += [ParamError(f"/{key}", "params.required", "is required") for key in parts if key not in params]
    if params.get("on_reject", "drop") not in ("drop", "stop"):
        errors.append(ParamError("/on_reject", "params.choice", "must be drop or stop"))
    schema = None
    if "schema" in parts and "schema" in params:
        try:
            schema = Schema(params["schema"])
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
                "must be <field>:drop, <field>:replace_with=V, <field>:hash, <field>:mask=P:S:C with one "
                "character C, or <field>:truncate=N"
            )
            errors.append(ParamError(f"/rules/{index}", "rule.invalid", detail))
    return rules


def _change(match: re.Match[str]) -> Callable[[Any], str] | None:
    if match["plain"] == "drop":
        return None
    if match["plain"] == "hash":
        return lambda value: hashlib.sha256(canonical(value)).hexdigest()
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
    return value if isinstance(value, str) else canonical(value).decode()


def _redact(node: Any, path: tuple[str, ...], change: Callable[[Any], str] | None, work: Work) -> None:
    if isinstance(node, list):
        work.spend(len(node))
        for item in node:
            _redact(item, path, change, work)
    elif isinstance(node, dict) and (name := path[0]) in node:
        if path[1:]:
            _redact(node[name], path[1:], change, work)
        elif change is None:
            del node[name]
        else:
            node[name] = change(node[name])
