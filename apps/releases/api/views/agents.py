"""The operations on agents. They are routed in this app instead of fleet, because the search knows what agents run."""

from __future__ import annotations

from apps.fleet.api.views.agents import AgentViewSet
from apps.fleet.services import agent_search
from apps.fleet.services.agent_search import Term
from apps.releases.services.running_versions import runs
from byteor_cloud.api.parameters import Parameter
from byteor_cloud.errors import InvalidInput


def _read(text: str) -> tuple[Term, ...]:
    try:
        terms = agent_search.parse(text)
    except InvalidInput as error:
        raise ValueError(error.detail) from None
    if not terms:
        raise ValueError("Must have at least one term.")
    return terms


class FoundAgentViewSet(AgentViewSet):
    """The agents of an environment, whose list has the same search as the console."""

    filters = {
        **AgentViewSet.filters,
        "query": Parameter(
            schema={"type": "string", "minLength": 1, "maxLength": agent_search.MAX_LENGTH,
                    "pattern": agent_search.PATTERN},
            read=_read,
            condition=lambda terms: agent_search.pulse_condition(terms, runs),
            description="Returns only agents that match all terms of this search, which are separated by spaces: "
            "`zone=eu-1` (has this label), `has:zone` (has a label with this key), `!zone` (has no label with this "
            "key), `status:failed`, `liveness:offline`, `drift:yes`, `drained:no`, `cloned:yes`, `pipeline:quotes` "
            "(runs this pipeline), `v7` or `quotes@v7` (runs this version), `agent:1.4.2` (has this agent version). "
            "Any other word must be a part of the agent's name or host name, or the agent's whole id. Put values with "
            "spaces in double quotes.",
        ),
    }  # fmt: skip
