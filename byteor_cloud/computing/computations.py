"""The computations that an API process may run in ``byteor_cloud.computing.process``. Does not use Django.

Arguments and results are pickled and sent over a socket, which takes the API process time in proportion to their size.
Most functions therefore return what their caller stores or sends, in its final form, and not the engine's objects.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from byteor.engine import strict_json
from byteor.engine.compiler import (
    Compilation,
    Diagnostic,
    Ops,
    PipelineSpec,
    PlanSyntaxError,
    SpecDiff,
    compile_plan,
    decode,
    diff_specs,
    locate,
    parse_plan,
    spec_to_json,
    to_svg,
    write_plan,
)
from byteor.engine.configuration import diff_configurations
from byteor.engine.replay import JournalIndex, StaleIndex, compare, journal_page
from byteor.engine.replay.compare import compare_with_members
from byteor.engine.replay.divergence_context import read_around_in
from byteor_cloud.computing.configuration_checks import check_runtime_config
from byteor_cloud.json_text import JsonText, parsed

MAX_BYTES = 4 * 1024 * 1024
"""The maximum size in bytes of a preview, of a version's drawing, and of a spec in the editor.

Larger ones are truncated or left out.
"""
_DIFF_BYTES = 1536 * 1024  # the maximum size in bytes of a diff's list of changes, and of its text
MAX_DRAWN_STAGES = 500  # the drawing of a pipeline with more stages is slow, and unreadable in the editor


@cache
def installed_ops() -> Ops:
    """Return the installed ops. Installed packages are searched once per process."""
    return Ops.installed()


def _compile(plan: object, target: str | None = None) -> Compilation:
    return compile_plan(parsed(plan), target=target, ops=installed_ops())


class CompiledDraft(NamedTuple):
    """The results of compiling a draft's plan, as stored in the draft."""

    diagnostics: list[dict[str, str]]
    spec_hash: str | None


def compile_draft(plan: object) -> CompiledDraft:
    """Compile the plan of a draft."""
    compilation = _compile(plan)
    return CompiledDraft([each.to_json() for each in compilation.diagnostics], compilation.spec_hash)


class CompiledVersion(NamedTuple):
    """The results of compiling a plan, as stored in a version. If there are ``errors``, the other fields are empty."""

    errors: list[dict[str, str]]
    name: str = ""
    spec: JsonText = JsonText("{}")
    spec_kv: str = ""
    spec_hash: str = ""


def compile_version(plan: object) -> CompiledVersion:
    """Compile the plan of a new version, or of a draft that a regression tests."""
    compilation = _compile(plan)
    if compilation.spec is None:
        return CompiledVersion(_errors(compilation))
    spec = compilation.spec
    text = JsonText(_body(spec_to_json(spec)).decode())
    return CompiledVersion([], spec.name, text, compilation.spec_kv or "", compilation.spec_hash or "")


def _errors(compilation: Compilation) -> list[dict[str, str]]:
    return [each.to_json() for each in compilation.diagnostics if each.severity == "error"]


def preview(plan: object, target: str | None) -> bytes:
    """Compile a plan and return the body of the response, which may be many times as large as the plan.

    If parts do not fit into ``MAX_BYTES``, they are null, and ``truncated`` is true.
    """
    found = {**_compile(plan, target).to_json(), "truncated": False}
    left = MAX_BYTES - len(_body({**found, **dict.fromkeys(_LARGE_PARTS)}))
    for part in _LARGE_PARTS:
        size = len(_body(found[part]))
        if size <= left:
            left -= size
        else:
            found |= {part: None, "truncated": True}
    return _body(found)


_LARGE_PARTS = ("spec_kv", "spec", "graph", "dot")


def _body(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def diff_plan(against: str, old_kv: str, plan: object) -> bytes | list[dict[str, str]]:
    """Return the body of a response with the changes from a version's spec to a plan, or the plan's compile errors."""
    compilation = _compile(plan)
    if compilation.spec is None:
        return _errors(compilation)
    diff = diff_specs(decode(old_kv), compilation.spec).bounded(_DIFF_BYTES)
    return _body({"against": against, **diff.to_json()})


def diff_versions(against: str, old_kv: str, new_kv: str) -> bytes:
    """Return the body of a response with the changes from the spec of the version ``against`` to another one."""
    return _body({"against": against, **diff_kv(old_kv, new_kv).to_json()})


def diff_kv(old_kv: str, new_kv: str) -> SpecDiff:
    """Return the changes from one spec to another, or only the first ones if there are too many."""
    return diff_specs(decode(old_kv), decode(new_kv)).bounded(_DIFF_BYTES)


def plan_text(plan: object) -> str:
    """Write a plan as indented JSON, for the editor."""
    return write_plan(parsed(plan))


def draw(spec_kv: str) -> str | None:
    """Draw a spec as SVG. Returns None if the drawing is too large."""
    drawing = to_svg(decode(spec_kv))
    return drawing if len(drawing.encode()) <= MAX_BYTES else None


def preview_text(text: bytes, target: str | None, against_kv: str | None) -> dict[str, Any]:
    """Compile a plan's text for the editor. Return diagnostics with lines and columns.

    If the plan compiles, the result also has the spec and its drawing (None if the spec has too many stages). If
    ``against_kv`` is given as well, the result has ``diff``, a SpecDiff with the changes from that spec.
    """
    try:
        plan = parse_plan(text)
    except PlanSyntaxError as error:
        return {"ok": False, "diagnostics": [_syntax_diagnostic(error)]}
    compilation = _compile(plan, target)
    found = {"ok": compilation.ok, "diagnostics": _locate_diagnostics(text.decode(), compilation.diagnostics)}
    if compilation.spec is not None:
        found |= _compilation_json(compilation, compilation.spec)
        if against_kv is not None:
            found["diff"] = diff_specs(decode(against_kv), compilation.spec).bounded(_DIFF_BYTES)
    return found


def _compilation_json(compilation: Compilation, spec: PipelineSpec) -> dict[str, Any]:
    return {
        "target": compilation.target,
        "spec_kv": (compilation.spec_kv or "")[:MAX_BYTES],
        "spec_hash": compilation.spec_hash,
        "svg": to_svg(spec) if len(spec.stages) <= MAX_DRAWN_STAGES else None,
    }


def _syntax_diagnostic(error: PlanSyntaxError) -> dict[str, Any]:
    return {
        "severity": "error",
        "code": "plan.syntax",
        "message": error.message,
        "hint": "",
        "line": error.line,
        "column": error.column,
    }


def _locate_diagnostics(text: str, diagnostics: tuple[Diagnostic, ...]) -> list[dict[str, Any]]:
    places = locate(text, [diagnostic.pointer for diagnostic in diagnostics])
    return [{**each.to_json(), **places[each.pointer]._asdict()} for each in diagnostics]


def page_body(journal: str, index: str, lane: str, **options: Any) -> bytes:
    """Return the body of a response with a page of a journal. Raises the same errors as ``read_page``."""
    return _body(read_page(journal, index, lane, **options))


def compare_body(result_a: Mapping[str, Any], result_b: Mapping[str, Any], **options: Any) -> bytes:
    """Return the body of a response that describes how the results of two replays differ."""
    return _body(compare(result_a, result_b, **options))


def read_page(journal: str, index: str, lane: str, **options: Any) -> dict[str, Any]:
    """Return a page of a journal. Raises FileNotFoundError if it or its index is missing, and StaleIndex."""
    with JournalIndex.open(Path(journal), Path(index)) as opened:
        return journal_page(opened, lane, **options)


COMPUTATIONS: Mapping[str, Callable[..., Any]] = {
    function.__qualname__: function
    for function in (
        compile_draft, compile_version, preview, preview_text, diff_plan, diff_versions, diff_kv,
        draw, plan_text, parse_plan,
        strict_json.read, compare_with_members, compare_body, read_around_in,
        check_runtime_config, diff_configurations, read_page, page_body,
    )
}  # fmt: skip
"""The functions by name. The child process finds a function by its name."""

READS_FILES = frozenset({read_around_in, read_page, page_body})
"""The functions that read files. Small arguments therefore do not mean that they are fast."""

EXPECTED: Mapping[str, type[Exception]] = {
    error.__qualname__: error for error in (strict_json.MalformedJson, PlanSyntaxError, StaleIndex, FileNotFoundError)
}
"""The errors that callers of a computation expect, by name. Any other error, except MemoryError, is a bug."""

HEAD = struct.Struct(">Q?")
"""The header of each message between the two processes: its size in bytes, and whether it is the last message."""


class Outcome(NamedTuple):
    """The outcome of a computation: its result, an expected error (name, arguments, attributes), or why it failed."""

    result: Any = None
    error: tuple[str, tuple[Any, ...], dict[str, Any]] | None = None
    crash: str | None = None
    needs_more_memory: bool = False
