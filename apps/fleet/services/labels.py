"""Valid label keys, and label changes that affect many agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db import transaction
from django.db.models import F, JSONField, QuerySet, TextField, Value
from django.db.models.expressions import CombinedExpression
from django.utils import timezone

from apps.fleet.models import Agent
from apps.fleet.services.agents import welcome
from apps.fleet.services.selection import unnest_ids
from apps.tenancy.actors import Actor
from apps.tenancy.models import Environment
from apps.tenancy.services import audit
from apps.tenancy.services.state import keep_environments
from byteor_cloud.errors import InvalidInput
from byteor_cloud.patterns import matcher

MAX_LABELS = 64
MAX_VALUE = 255
LABEL_KEY = r"^[^=,\u0000-\u001f\u007f-\u00a0\u2000-\u200f\u2028-\u202f\u205f-\u206f\ufeff]{1,128}$"
# Agents per audit event. An event contains the old values of the agents' changed labels, and this limit keeps it small.
_AGENTS_PER_EVENT = 100


_matches_key = matcher(LABEL_KEY)


def is_label_key(text: str) -> bool:
    """Return whether the text is a valid label key."""
    return _matches_key(text) and text.isprintable()


@dataclass(frozen=True, slots=True)
class LabelChange:
    """The labels to set, and the keys to remove. No key is in both."""

    set: Mapping[str, str] = field(default_factory=dict)
    unset: Sequence[str] = ()

    def of(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Return the labels after the change."""
        return {key: value for key, value in {**labels, **self.set}.items() if key not in self.unset}

    def before(self, labels: Mapping[str, str]) -> dict[str, str | None]:
        """Return the old values of the changed keys, with None for labels that did not exist."""
        return {key: labels.get(key) for key in (*self.set, *self.unset)}

    @property
    def changed_labels(self) -> CombinedExpression:
        """A query expression for an agent's labels after the change."""
        added = CombinedExpression(F("labels"), "||", Value(dict(self.set), JSONField()), JSONField())
        return CombinedExpression(added, "-", Value(list(self.unset), ArrayField(TextField())), JSONField())


def read_change(text: str) -> LabelChange:
    """Parse a change in the form that people enter, such as ``zone=eu-1, !trial``.

    Raises InvalidInput if the text is malformed, contains no change, or names a key twice.
    """
    added: list[tuple[str, str]] = []
    removed: list[str] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        key, equals, value = part.partition("=")
        if equals:
            added.append((key.strip(), value.strip()))
        elif part.startswith("!"):
            removed.append(part.removeprefix("!").strip())
        else:
            raise InvalidInput(f"Write KEY=VALUE or !KEY, not {part}.")
    keys = [*(key for key, _ in added), *removed]
    for key, value in [*added, *((key, "") for key in removed)]:
        if not (is_label_key(key) and len(value) <= MAX_VALUE and value.isprintable()):
            raise InvalidInput(
                "A key must have 1 to 128 printable characters, without = or commas. "
                f"A value may have at most {MAX_VALUE} printable characters."
            )
    if not keys or len(set(keys)) < len(keys):
        raise InvalidInput("Enter at least one label, and each key only once.")
    return LabelChange(dict(added), removed)


def select_changing(agents: QuerySet[Agent], change: LabelChange) -> Any:
    """Select the agents whose labels the change alters, ordered by id and annotated with ``changed_labels``."""
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
    """Change the labels of agents in the environment, and enqueue the jobs that offer them bundles.

    Returns the number of changed agents. Raises InvalidInput if an agent would have too many labels.
    """
    keep_environments(environment.pk)
    before: dict[UUID, dict[str, str]] = dict(
        select_changing(agents, change).select_for_update(of=("self",), no_key=True).values_list("pk", "labels")
    )
    if any(len(change.of(labels)) > MAX_LABELS for labels in before.values()):
        raise InvalidInput.at("/set", f"An agent would then have more than {MAX_LABELS} labels.", code="too_many")
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
