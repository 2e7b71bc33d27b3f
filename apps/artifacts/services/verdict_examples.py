"""Stores the examples of verdicts within a limit for each organization."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Sum

from apps.artifacts.models import Artifact, RegressionResult, Verdict, VerdictExample
from apps.releases.models import Regression

MAX_BYTES = 256 * 1024 * 1024
"""The maximum size of the examples of an organization."""
_ROWS = 500  # rows of one statement


def store(regression: Regression, organization: UUID, verdicts: Sequence[Verdict], found: Mapping[str, Any]) -> None:
    """Store the examples of new verdicts of a regression. ``found`` has an artifact's id and groups for each key.

    Verdicts whose artifact was deleted get no examples. If the organization's examples would exceed ``MAX_BYTES``,
    those of the verdicts that were unused for longest are deleted, except those of this regression. If that would not
    suffice, nothing is deleted, and the new verdicts get no examples.
    """
    artifacts = Artifact.objects.select_for_update(no_key=True).filter(pk__in={found[each.key][0] for each in verdicts})
    living = set(artifacts.order_by("pk").values_list("pk", flat=True))
    rows = list[VerdictExample]()
    changed = list[Verdict]()
    for verdict in verdicts:
        artifact, groups = found[verdict.key]
        if artifact not in living or not groups:
            continue
        rows += [
            VerdictExample(verdict=verdict, group=each["id"], artifact_id=artifact, example=each["example"])
            for each in groups
        ]
        verdict.example_bytes = sum(len(json.dumps(each["example"])) for each in groups)
        changed.append(verdict)
    if changed and _make_room(regression, organization, sum(each.example_bytes for each in changed)):
        VerdictExample.objects.bulk_create(rows, batch_size=_ROWS)
        Verdict.objects.bulk_update(changed, ["example_bytes"], batch_size=_ROWS)


def _make_room(regression: Regression, organization: UUID, needed: int) -> bool:
    """Delete examples until ``needed`` more bytes fit. Returns False, and deletes nothing, if they cannot fit."""
    stored = Verdict.objects.filter(organization=organization, example_bytes__gt=0)
    excess = (stored.aggregate(total=Sum("example_bytes"))["total"] or 0) + needed - MAX_BYTES
    if excess <= 0:
        return True
    own = RegressionResult.objects.filter(regression=regression, verdict=OuterRef("pk"))
    unused = list[UUID]()
    for pk, size in stored.filter(~Exists(own)).order_by("used_at").values_list("pk", "example_bytes"):
        unused.append(pk)
        excess -= size
        if excess <= 0:
            VerdictExample.objects.filter(verdict__in=unused).delete()
            Verdict.objects.filter(pk__in=unused).update(example_bytes=0)
            return True
    return False
