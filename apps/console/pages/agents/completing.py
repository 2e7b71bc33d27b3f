"""Completions for the search field of the agent list."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from apps.console.frame import site
from apps.console.frame.scope import scope_of
from apps.console.pages.deployments.phrases import agent_count
from apps.fleet.models import Agent
from apps.fleet.services import agent_search, facts
from apps.releases.services.running_versions import count_versions
from apps.tenancy.models import Environment

MAX_SHOWN = 50
_NOTES = {
    "agent": "agent version, as in agent:1.4.2",
    "cloned": "whether a clone is suspected",
    "drained": "whether the agent is drained",
    "drift": "whether what runs differs from what should run",
    "has": "has a label with this key",
    "liveness": "whether heartbeats arrive on time",
    "pipeline": "runs this pipeline",
    "status": "as reported by the agent",
}

type Completion = tuple[str, str]
"""The text of a complete or partial term, and a note about it."""


@require_safe
def completions_view(request: HttpRequest) -> HttpResponse:
    """Return the completions of the term ``text`` as JSON, each with its text and a note."""
    if not site.get_model_admin(Agent).has_view_permission(request):
        return JsonResponse({"completions": []})
    text = request.GET.get("text", "")[: agent_search.MAX_LENGTH].replace("\0", "")
    environments = environments_in_scope(request)
    facts.catch_up(environments)
    found = islice(_complete(environments, text), MAX_SHOWN)
    return JsonResponse({"completions": [{"text": each, "note": note} for each, note in found]})


def environments_in_scope(request: HttpRequest) -> QuerySet[Any]:
    """Return the environments in the page's scope that the person may see."""
    admin, scope = site.get_model_admin(Environment), scope_of(request)
    visible: QuerySet[Any] = admin.visible_rows(request)
    return visible if scope is None else admin.in_scope(visible, scope)


def _complete(environments: QuerySet[Any], text: str) -> Iterator[Completion]:
    key, colon, start = text.partition(":")
    if text.startswith("!") or (key == "has" and colon):
        write = agent_search.lacks_term if text.startswith("!") else agent_search.has_term
        for label, agents in facts.find_label_keys(environments, _bare(text[1:] if text[0] == "!" else start)).items():
            yield write(label), agent_count(agents)
    elif key == "pipeline" and colon:
        pipelines = sorted({version.pipeline for version in count_versions(environments)})
        yield from ((f"pipeline:{each}", "") for each in pipelines if each.startswith(start))
    elif key in agent_search.KEYS and colon:
        yield from ((f"{key}:{value}", "") for value in agent_search.KEYS[key] if value.startswith(start))
    elif "=" in text:
        label, _, start = text.partition("=")
        for value, agents in facts.find_label_values(environments, _bare(label), _bare(start)).items():
            yield agent_search.label_term(_bare(label), value), agent_count(agents)
    else:
        yield from ((f"{each}:", _NOTES[each]) for each in agent_search.KEYS if each.startswith(text))
        for label, agents in facts.find_label_keys(environments, _bare(text)).items():
            yield agent_search.label_term(label, ""), f"label of {agent_count(agents)}"
        for version, agents in count_versions(environments).most_common():
            term = f"{version.pipeline}@v{version.number}"
            if term.startswith(text) or f"v{version.number}".startswith(text):
                yield term, f"version that {agent_count(agents)} run{'s' if agents == 1 else ''}"


def _bare(text: str) -> str:
    """Return a partial key or value without its quotes."""
    return text.strip('"')


site.add_page("agents/completions/", "agent_completions", completions_view)
