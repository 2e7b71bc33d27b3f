"""Plans and configurations in JSON or YAML, and the lines of their values, which messages name."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from yaml.reader import ReaderError

from byteor.command.exits import USAGE, Refusal
from byteor.engine.strict_json import JsonLimits, MalformedJson, pointer_of, read

MOST_VALUES: Final = 200_000
MOST_DEPTH: Final = 64


_SCALARS: Final = frozenset(f"tag:yaml.org,2002:{each}" for each in ("null", "bool", "int", "float", "str"))


class PlanFile(NamedTuple):
    """The content of a file: its name in messages, its value, and the known lines by JSON Pointer."""

    name: str
    plan: dict[str, Any]
    lines: dict[str, int]

    def line_of(self, pointer: str) -> int:
        """Return the line of the value, or of the nearest value around it whose line is known; 1 if there is none."""
        while pointer and pointer not in self.lines:
            pointer = pointer.rpartition("/")[0]
        return self.lines.get(pointer, 1)


class _Loader(yaml.SafeLoader):
    """Reads the values that JSON has. Dates, and words such as ``no`` and ``on``, are text, as in YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}


_NUMBER = r"-?(?:0|[1-9][0-9]*)"
for _tag, _pattern, _first in (
    ("null", "|~|null", ["", "~", "n"]),
    ("bool", "true|false", ["t", "f"]),
    ("int", _NUMBER, list("-0123456789")),
    ("float", rf"{_NUMBER}(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", list("-0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def read_plan(path: str, what: str = "plan") -> PlanFile:
    """Read a plan or configuration from a file, or from stdin for ``-``.

    ``what`` is the word for the content in messages. Raises Refusal, which names the line of most syntax errors.
    """
    name = "stdin" if path == "-" else path
    try:
        text = (sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()).decode("utf-8-sig")
    except OSError as error:
        raise Refusal(f"{name} cannot be read: {error.strerror}.", USAGE) from None
    except UnicodeDecodeError:
        raise Refusal(f"{name} cannot be read: it is not UTF-8.", USAGE) from None
    is_json = text.lstrip().startswith("{")
    reader = _Reader()
    value: Any = None
    try:
        value = reader.value(yaml.compose(text, Loader=_Loader), ())
    except (yaml.YAMLError, RecursionError) as error:
        if not is_json:
            raise Refusal(f"{name}:{_describe_fault(error, text)}", USAGE) from None
    if is_json:  # YAML cannot read some escapes and tabs of JSON, so it is used only to find the lines
        try:
            value = read(text, JsonLimits(max_depth=MOST_DEPTH, max_values=MOST_VALUES))
        except MalformedJson as error:
            raise Refusal(f"{name}:{error.line}: {error.message}", USAGE) from None
    if not isinstance(value, dict):
        raise Refusal(f"{name}:1: A {what} must be a JSON object or a YAML mapping.", USAGE)
    return PlanFile(name, value, reader.lines)


class _Reader:
    """Converts YAML nodes to values, and records their lines."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self._constructor = _Loader("")
        self._count = 0

    def value(self, node: Any, path: tuple[str | int, ...]) -> Any:
        """Return the value of a node.

        Raises MarkedYAMLError for a value or name that JSON does not have, for a repeated name, and for too many values
        or levels.
        """
        if node is None:
            return None
        self._count += 1
        if self._count > MOST_VALUES or len(path) > MOST_DEPTH:  # aliases can repeat, and even contain themselves
            raise _fault(node, f"There are more than {MOST_VALUES} values, or more than {MOST_DEPTH} levels.")
        self.lines.setdefault(pointer_of(path), node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*path, at)) for at, each in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key, each in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise _fault(key, "A name must be text.")
                if key.value in found:
                    raise _fault(key, f"The name {key.value} occurs twice.")
                self.lines[pointer_of((*path, key.value))] = key.start_mark.line + 1
                found[key.value] = self.value(each, (*path, key.value))
            return found
        if node.tag not in _SCALARS:
            raise _fault(node, "A value must be text, a number, true, false or null.")
        try:
            value = self._constructor.construct_object(node)
        except (ValueError, LookupError):  # such as !!int with a word or nothing, or with too many digits for Python
            value = math.inf
        if isinstance(value, float) and not math.isfinite(value):
            raise _fault(node, f"This is not a JSON value: {node.value[:40]}")
        return value


def _describe_fault(error: Exception, text: str) -> str:
    """Return the line of an error and its reason, or line 1 if the error has no place."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, ReaderError):
        return f"{text.count('\n', 0, error.position) + 1}: {error.reason}"
    return "1: This cannot be read as YAML."


def _fault(node: Any, reason: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=reason, problem_mark=node.start_mark)
