"""Changes of the labels of many agents at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, JSONField, QuerySet
from django.db.models.expressions import RawSQL
from django.utils import timezone

from apps.fleet.models import Agent
from apps.fleet.services import unnest_ids, welcome
from apps.tenancy import audit
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from byteor_cloud.errors import InvalidInput

MAX_LABELS = 64
# An event says what each of its agents had before. More agents make more events, none of them too large to list.
_AGENTS_PER_EVENT = 100


@dataclass(frozen=True, slots=True)
class LabelChange:
    """The labels to set, and the keys to remove. No key is in both."""

    set: Mapping[str, str] = field(default_factory=dict)
    unset: Sequence[str] = ()

    def of(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Return the labels after the change."""
        return {key: value for key, value in {**labels, **self.set}.items() if key not in self.unset}

    def before(self, labels: Mapping[str, str]) -> dict[str, str | None]:
        """Return the old values of the keys that the change concerns; None for a label that is not there."""
        return {key: labels.get(key) for key in (*self.set, *self.unset)}

    @property
    def changed_labels(self) -> RawSQL:
        """The labels of an agent after the change, as an expression of a query."""
        expression = '("fleet_agent"."labels" || %s::jsonb) - %s::text[]'
        return RawSQL(expression, [json.dumps(dict(self.set)), list(self.unset)], JSONField())


def select_changing(agents: QuerySet[Agent], change: LabelChange) -> Any:
    """Return those of the agents that the change alters, with ``changed_labels``, in the order of their ids."""
    annotated = agents.annotate(changed_labels=change.changed_labels)
    return annotated.exclude(labels=F("changed_labels")).order_by("pk")


@transaction.atomic
def change_labels(
    environment: Environment,
    agents: QuerySet[Agent],
    change: LabelChange,
    *,
    selector: Mapping[str, str] | None,
    actor: Actor,
) -> int:
    """Change the labels of agents of the environment, and let apps.releases offer them what they match then.

    Returns how many agents were changed. Raises InvalidInput if one of them would have too many labels.
    """
    before: dict[UUID, dict[str, str]] = dict(
        select_changing(agents, change).select_for_update(of=("self",), no_key=True).values_list("pk", "labels")
    )
    if any(len(change.of(labels)) > MAX_LABELS for labels in before.values()):
        raise InvalidInput.at("/set", f"An agent would have more than {MAX_LABELS} labels.", code="too_many")
    ids = list(before)
    Agent.objects.filter(pk__in=unnest_ids(ids)).update(
        labels=change.changed_labels, revision=F("revision") + 1, updated_at=timezone.now()
    )
    done = {"selector": selector, "set": dict(change.set), "unset": list(change.unset)}
    audit.record_all(
        audit.Entry(
            "agent.label",
            actor,
            environment,
            ("environment", environment.pk),
            {**done, "before": {str(pk): change.before(before[pk]) for pk in ids[start : start + _AGENTS_PER_EVENT]}},
        )
        for start in range(0, len(ids), _AGENTS_PER_EVENT)
    )
    if ids:
        welcome(ids, organization=environment.project.organization_id)
    return len(ids)
