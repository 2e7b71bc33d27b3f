"""The search syntax for agents, as in ``zone=eu-1 status:failed quotes@v7``: its parser and its conditions.

A search consists of terms separated by spaces, and an agent must match all of them. The parameter ``query`` of the
operation ``listAgents`` documents the terms. Only ``apps.releases`` knows what a bundle contains, so callers pass the
condition for pipelines and versions (``Runs``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Final

from django.db.models import Q

from apps.fleet.models import Heartbeat, Liveness
from apps.fleet.services import facts
from byteor_cloud.errors import InvalidInput
from byteor_cloud.ids import read_id
from byteor_cloud.patterns import matcher

MAX_LENGTH: Final = 500
MAX_TERMS: Final = 20
FLAGS: Final = ("yes", "no")
# The keys of ``key:value`` terms with the valid values. A key with an empty tuple has no fixed values.
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "agent": (),
    "cloned": FLAGS,
    "drained": FLAGS,
    "drift": FLAGS,
    "has": (),
    "liveness": tuple(Liveness),
    "pipeline": (),
    "status": tuple(Heartbeat.Status.values),
}
_CONTROLS = r"\u0000-\u001f\u007f-\u009f\u2028\u2029"
_PIPELINE = "[a-z][a-z0-9_-]{0,62}"


def _quoted(size: str) -> str:
    return rf'"(?:[^"\\{_CONTROLS}]|\\["\\]){size}"'


_LABEL = rf'(?:[^ "=:,!{_CONTROLS}][^ "=:,{_CONTROLS}]{{0,127}}|{_quoted("{1,128}")})'
_VALUES = {
    "agent": rf'(?:[^ "{_CONTROLS}]{{1,64}}|{_quoted("{1,64}")})',
    "has": _LABEL,
    "pipeline": _PIPELINE,
}
# The kinds of terms. At most one of them matches a term, so that the pattern of a whole search needs no backtracking.
_KINDS: Final[Mapping[str, str]] = {
    "label": rf'{_LABEL}=(?:[^ "{_CONTROLS}]{{0,255}}|{_quoted("{0,255}")})',
    "lacks": f"!{_LABEL}",
    **{key: f"{key}:(?:{_VALUES.get(key, '|'.join(values))})" for key, values in KEYS.items()},
    "name": rf'(?:[^ "=:!{_CONTROLS}][^ "=:{_CONTROLS}]{{0,199}}|{_quoted("{1,200}")})',
}
PATTERN: Final = f"^ *(?:(?:{'|'.join(_KINDS.values())})(?: +|$)){{1,{MAX_TERMS}}}$"
"""The pattern of a valid search with at least one term, in the syntax of JSON Schema."""
_TERM = re.compile(r'(?:[^ "]|"(?:[^"\\]|\\.)*(?:"|\\?$))+')
_matchers = {kind: matcher(f"^(?:{pattern})$") for kind, pattern in _KINDS.items()}
_VERSION = re.compile(rf"(?:({_PIPELINE})@)?v([1-9][0-9]{{0,8}})")
_UNQUOTED = re.compile(r'[^ "=:,!][^ "=:,]*')
_HELP = 'To find a name that contains a colon, put it in double quotes, as in "a:b".'

type Runs = Callable[[str | None, int | None], Q]
"""Returns the condition that a pulse's agent runs this pipeline and this version. None stands for any."""


@dataclass(frozen=True, slots=True)
class Term:
    """One condition of a search.

    ``kind`` is a key of ``KEYS``, or ``label``, ``lacks``, ``version`` or ``name``. ``key`` is the label's key in a
    ``label`` term, and the pipeline in a ``version`` term if it names one. Otherwise it is empty.
    """

    kind: str
    value: str
    key: str = ""


def parse(text: str) -> tuple[Term, ...]:
    """Parse a search. An empty text has no terms.

    Raises InvalidInput if the search has too many characters or terms, or if a term is invalid. The error then explains
    the first invalid term.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidInput(f"A search may have at most {MAX_LENGTH} characters.")
    terms = tuple(_read(part) for part in _TERM.findall(text))
    if len(terms) > MAX_TERMS:
        raise InvalidInput(f"A search may have at most {MAX_TERMS} terms.")
    return terms


def label_term(key: str, value: str) -> str:
    """Return the text of the term for agents with this label."""
    return f"{_quote(key, is_key=True)}={_quote(value)}"


def lacks_term(key: str) -> str:
    """Return the text of the term for agents without a label with this key."""
    return f"!{_quote(key, is_key=True)}"


def has_term(key: str) -> str:
    """Return the text of the term for agents with any label with this key."""
    return f"has:{_quote(key, is_key=True)}"


def _quote(text: str, *, is_key: bool = False) -> str:
    if _UNQUOTED.fullmatch(text) or not (is_key or {'"', " "} & set(text)):
        return text
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


def _read(part: str) -> Term:
    kind = next((kind for kind, is_match in _matchers.items() if is_match(part)), None)
    if kind is None:
        raise InvalidInput(_explain(part))
    if kind == "label":
        key, value = _split(part, "=")
        return Term(kind, _unquote(value), _unquote(key))
    if kind == "lacks":
        return Term(kind, _unquote(part[1:]))
    if kind == "name":
        version = _VERSION.fullmatch(part)
        return Term("version", version[2], version[1] or "") if version else Term(kind, _unquote(part))
    return Term(kind, _unquote(_split(part, ":")[1]))


def _split(part: str, separator: str) -> tuple[str, str]:
    """Split a term at the first separator outside of quotes."""
    key = re.match(rf'(?:"(?:[^"\\]|\\.)*"|[^"{separator}])*', part)
    assert key is not None  # noqa: S101  for mypy: the pattern matches the empty text
    return key[0], part[key.end() + 1 :]


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def _explain(part: str) -> str:
    """Return why a term is invalid, and what to write instead."""
    key, value = _split(part, ":")
    if not _VALID_QUOTES.fullmatch(part):
        return (
            f"{part} contains a double quote that is not closed, or an invalid backslash. "
            'Within double quotes, write \\" for a quote and \\\\ for \\.'
        )
    if key in KEYS and part != key:
        if KEYS[key]:
            return f"{value or 'The empty text'} is not a value of {key}. Use {_either(KEYS[key])}."
        rules = {
            "agent": "Write the agent version after agent:, as in agent:1.4.2.",
            "has": "Write the key of a label after has:, as in has:zone.",
            "pipeline": "Write the name of a pipeline after pipeline:, as in pipeline:quotes.",
        }
        return f"{part} is invalid. {rules[key]}"
    if part.startswith("!"):
        return f"{part} is invalid. Write !KEY to find agents without a label, as in !zone."
    if _split(part, "=")[0] != part:
        return (
            f"{part} is invalid. Write KEY=VALUE to find a label, as in zone=eu-1. "
            "Put double quotes around a key or value that contains spaces, and around a key that contains a colon."
        )
    if key != part:
        return f"{key or 'The empty text'} is not a search key. Use {_either(KEYS)}. {_HELP}"
    return f"{part} is invalid. Write a name, a label such as zone=eu-1, or a key such as status:failed."


_VALID_QUOTES = re.compile(r'(?:[^"]|"(?:[^"\\]|\\["\\])*")*')


def _either(words: Mapping[str, object] | tuple[str, ...]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}"


# -- conditions ---------------------------------------------------------------------------------------------------


def agent_condition(terms: tuple[Term, ...], runs: Runs) -> Q:
    """Return the condition that an agent matches all terms. Update the facts first (``facts.catch_up``).

    Only enrolled agents match terms about status, liveness, drift, pipelines and versions.
    """
    pulse = _all_of(_pulse_conditions(terms, runs))
    found = _all_of(_own_conditions(terms, ""))
    return found & facts.agents_with(pulse, is_rare=_is_rare(terms)) if pulse else found


def pulse_condition(terms: tuple[Term, ...], runs: Runs) -> Q:
    """Return the condition that the agent of a pulse matches all terms."""
    return _all_of(_pulse_conditions(terms, runs)) & _all_of(_own_conditions(terms, "agent__"))


def _all_of(conditions: Iterator[Q]) -> Q:
    return reduce(and_, conditions, Q())


def _is_rare(terms: tuple[Term, ...]) -> bool:
    """Return whether usually few agents match (see ``facts.agents_with``)."""
    return any(
        (term.kind == "liveness" and term.value != Liveness.ONLINE) or (term.kind, term.value) == ("drift", "yes")
        for term in terms
    )


def _pulse_conditions(terms: tuple[Term, ...], runs: Runs) -> Iterator[Q]:
    """Yield the conditions on columns of a pulse."""
    for term in terms:
        match term.kind:
            case "status":
                yield Q(status=term.value)
            case "liveness":
                yield facts.has_liveness(term.value)
            case "drift":
                yield Q(drifted=term.value == "yes")
            case "pipeline":
                yield runs(term.value, None)
            case "version":
                yield runs(term.key or None, int(term.value))


def _own_conditions(terms: tuple[Term, ...], path: str) -> Iterator[Q]:
    """Yield the conditions on an agent and its heartbeat. ``path`` leads from the filtered model to the agent."""
    labels: dict[str, str] = {}
    for term in terms:
        match term.kind:
            case "label":
                if labels.setdefault(term.key, term.value) != term.value:
                    yield Q(pk__in=[])  # a label has only one value
            case "has":
                yield Q(**{f"{path}labels__has_key": term.value})
            case "lacks":
                yield ~Q(**{f"{path}labels__has_key": term.value})
            case "drained":
                yield Q(**{f"{path}drained_at__isnull": term.value == "no"})
            case "cloned":
                cloned = facts.cloned_agents()
                yield cloned if term.value == "yes" else ~cloned
            case "agent":
                yield Q(pk__in=Heartbeat.objects.filter(agent_version=term.value).values("pk"))
            case "name":
                yield _has_name(term.value, path)
    if labels:
        yield Q(**{f"{path}labels__contains": labels})


def _has_name(text: str, path: str) -> Q:
    found = Q(**{f"{path}name__icontains": text}) | Q(**{f"{path}hostname__icontains": text})
    try:
        return found | Q(pk=read_id(text))
    except ValueError:
        return found


def finds_words(terms: tuple[Term, ...]) -> bool:
    """Return whether a term compares the names and host names of agents. The comparison may read all agents."""
    return any(term.kind == "name" for term in terms)
