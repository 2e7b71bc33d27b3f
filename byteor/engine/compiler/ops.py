"""The ops that a stage may use: the built-in ops, and the ops of installed Python packages."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable
from urllib.parse import urlsplit

from .diagnostics import Code, CompileReport, join_options, nearest_word, quote

ENTRY_POINT_GROUP = "byteor.stages"
SIDE_EFFECTS = frozenset({"http_post", "exec"})
"""The keys of the ops with side effects, which need a capability and an allowlist."""

type Process = Callable[..., bytes | None]


@runtime_checkable
class StageOp(Protocol):
    """A package's op: the module or object that an entry point in the group ``byteor.stages`` loads.

    It may also have an attribute ``parameters``, the JSON Schema of its parameters, from which the console generates
    the fields of a form. The first paragraph of its docstring describes the op to authors of plans.
    """

    def validate(self, argument: str | None) -> str | None:
        """Return a description of the fault in the argument, or None if the argument is valid.

        The argument is the text after the op's colon, or None if there is no colon.
        """

    @property
    def process(self) -> Process:
        """The function ``(payload: bytes, params: dict | None) -> bytes | None`` that processes a record.

        It returns the new payload, or None to drop the record. ``params`` are the stage's parameters, None if
        it has none. If the op has an argument, the keyword ``argument`` passes it. The function must be deterministic.
        """


def split_op(op: str) -> tuple[str, str | None]:
    """Split an op at its first colon into its key and its argument, which is None if there is no colon."""
    key, colon, argument = op.partition(":")
    return key, argument if colon else None


def _no_argument(argument: str | None) -> str | None:
    return None if argument is None else "it accepts no argument"


MAX_DECLARED_BYTES, MAX_DECLARED_LEVELS = 64 * 1024, 30
_URL_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")


def _http_url(argument: str | None) -> str | None:
    if not argument:
        return "it needs a URL"
    if not _URL_CHARACTERS.fullmatch(argument):
        return "the URL contains a character that must be encoded"
    try:
        url = urlsplit(argument)
        port = url.port
        host = url.hostname or ""
        if ":" in host:
            ipaddress.IPv6Address(host)
    except ValueError:
        return "the URL's host or port is malformed"
    if url.scheme not in {"http", "https"}:
        return "the URL must start with http:// or https://"
    if port == 0 or not (":" in host or _HOST.fullmatch(host)):
        return "the URL must have a valid host, and its port must not be 0"
    if "@" in url.netloc:
        return "the URL must not contain credentials"
    return None


def _command(argument: str | None) -> str | None:
    program = (argument or "").split("|")[0]
    return None if program and program == program.strip() else "it needs a program, without spaces around it"


class _BuiltIn(NamedTuple):
    """A built-in op: the check of its argument, an example, and what it does."""

    validate: Callable[[str | None], str | None]
    example: str
    summary: str


_BUILT_IN: Mapping[str, _BuiltIn] = {
    "identity": _BuiltIn(_no_argument, "identity", "Passes each record unchanged."),
    "dataguard_check": _BuiltIn(
        _no_argument, "dataguard_check", "Rejects each record whose payload does not conform to a JSON Schema."
    ),
    "dataguard_redact": _BuiltIn(
        _no_argument, "dataguard_redact", "Removes, replaces, hashes, masks or truncates fields of each payload."
    ),
    "dataguard_fused": _BuiltIn(
        _no_argument, "dataguard_fused", "Checks each payload as dataguard_check does, then redacts its fields."
    ),
    "http_post": _BuiltIn(
        _http_url, "http_post:http://127.0.0.1:9000/hook",
        "Sends each payload to a URL, and passes the record unchanged. The URL follows the colon.",
    ),
    "exec": _BuiltIn(
        _command, "exec:/usr/bin/tr|a-z|A-Z",
        "Runs a program with each payload as its input, and passes the record unchanged. The program and its arguments "
        "follow the colon, separated by |.",
    ),
}  # fmt: skip


class OpSummary(NamedTuple):
    """The description of an op for authors of plans: its key, an example of the op, and what it does."""

    key: str
    example: str
    summary: str


@dataclass(frozen=True, slots=True)
class Ops:
    """The known ops: with ``Ops()`` the built-in ops, with ``Ops.installed()`` also the ops of installed packages."""

    stages: Mapping[str, StageOp] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    """The reasons why declared ops of packages cannot be used, by op key."""

    @classmethod
    def installed(cls) -> Self:
        """Load the ops of installed packages. This reads the disk, so keep the result."""
        stages: dict[str, StageOp] = {}
        broken: dict[str, str] = {}
        claims: dict[str, list[EntryPoint]] = {}
        for entry_point in entry_points(group=ENTRY_POINT_GROUP):
            claims.setdefault(entry_point.name, []).append(entry_point)
        for key, claimants in sorted(claims.items()):
            loaded = _load(key, claimants)
            if isinstance(loaded, str):
                broken[key] = loaded
            else:
                stages[key] = loaded
        return cls(stages, broken)

    def __iter__(self) -> Iterator[str]:
        yield from _BUILT_IN
        yield from self.stages

    def summaries(self) -> Iterator[OpSummary]:
        """Yield each op with an example and a summary, which is empty if a package's op has no docstring."""
        yield from (OpSummary(key, each.example, each.summary) for key, each in _BUILT_IN.items())
        yield from (OpSummary(key, key, _first_paragraph(stage)) for key, stage in self.stages.items())

    def declared_parameters(self, key: str) -> dict[str, Any] | None:
        """Return the JSON Schema that a package's op declares for its parameters, or None if there is no usable one.

        A schema of more than ``MAX_DECLARED_BYTES`` or ``MAX_DECLARED_LEVELS`` is not usable.
        """
        try:
            declared = getattr(self.stages.get(key), "parameters", None)
            text = json.dumps(declared, ensure_ascii=False, allow_nan=False).encode()
            schema = json.loads(text) if len(text) <= MAX_DECLARED_BYTES else None
        except Exception:  # a fault of a third-party package must not break the page that shows the op
            return None
        return schema if isinstance(schema, dict) and _has_levels(schema, MAX_DECLARED_LEVELS) else None

    def process(self, op: str) -> Process | None:
        """Return the function of a package's op with its argument bound, or None for any other op."""
        key, argument = split_op(op)
        stage = self.stages.get(key)
        if stage is None:
            return None
        return stage.process if argument is None else partial(stage.process, argument=argument)

    def check(self, op: str, pointer: str, report: CompileReport) -> None:
        """Report an op that is unknown or unusable, or whose argument is invalid."""
        key, argument = split_op(op)
        if key in _BUILT_IN:
            built_in = _BUILT_IN[key]
            if problem := built_in.validate(argument):
                hint = f'Write "{built_in.example}".'
                report.add(Code.STAGE_INVALID_OP, pointer, f"The op {quote(op)}: {problem}.", hint)
        elif key in self.stages:
            if problem := _argument_fault(self.stages[key], argument):
                hint = f'Write the op as documented by the package that provides "{key}".'
                report.add(Code.STAGE_INVALID_OP, pointer, f"The op {quote(op)}: {problem}.", hint)
        elif key in self.broken:
            message = f"The op {quote(key)} is installed but cannot be used: {self.broken[key]}."
            report.add(Code.STAGE_UNKNOWN_OP, pointer, message, "Repair or remove a package that provides it.")
        else:
            guess = nearest_word(key, self)
            hint = f"Write {quote(guess + op[len(key) :])}." if guess else f"Write one of {join_options(self)}."
            report.add(Code.STAGE_UNKNOWN_OP, pointer, f"The op {quote(op)} is unknown.", hint)


def _load(key: str, claimants: list[EntryPoint]) -> StageOp | str:
    """Load the entry point of an op key. If it cannot be used, return the reason as a string."""
    if key in _BUILT_IN:
        return "it would replace a built-in op"
    if not re.fullmatch("[a-z][a-z0-9_]*", key):
        return "its key may contain only a-z, 0-9 and _, and must start with a letter"
    if len(claimants) > 1:
        return "several packages provide it"
    try:
        stage: Any = claimants[0].load()
    except Exception as error:  # an error in a third-party package must not stop the compiler
        return f"loading it raised {type(error).__name__}: {_printable(error)}"
    if not isinstance(stage, StageOp) or not (callable(stage.validate) and callable(stage.process)):
        return "it does not provide validate and process"
    return stage


def _argument_fault(stage: StageOp, argument: str | None) -> str | None:
    try:
        problem = stage.validate(argument)
    except Exception as error:  # an error in a third-party package must not stop the compiler
        return f"checking it raised {type(error).__name__}: {_printable(error)}"
    return problem and _printable(problem)


def _has_levels(value: object, most: int) -> bool:
    """Return whether at most ``most`` objects and lists are nested in each other."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return items is None or (most > 0 and all(_has_levels(each, most - 1) for each in items))


def _first_paragraph(stage: StageOp) -> str:
    text = stage.__doc__
    return " ".join(text.strip().partition("\n\n")[0].split()) if isinstance(text, str) else ""


def _printable(text: object) -> str:
    """Shorten a package's text to one printable line."""
    return quote(str(text)).strip('"').rstrip(".")
