"""Numbers of agents by the value of a label or by the running bundle, with those that need attention.

The caller updates the facts first (``facts.catch_up``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import CharField, Count, F, Func, Q, QuerySet, Sum, TextField, Value
from django.utils import timezone

from apps.fleet.models import Heartbeat, LabelCount, Liveness, Pulse, PulseCount
from apps.fleet.services import facts

MAX_GROUPS: Final = 200


@dataclass(frozen=True, slots=True)
class Group:
    """The agents that have the same ``value``, which is None for agents without the label or without a bundle."""

    value: str | None
    agents: int = 0
    not_online: int = 0
    drifted: int = 0
    failed: int = 0

    def __add__(self, other: Group) -> Group:
        """Return the sums of both groups, with this group's value."""
        return Group(
            self.value,
            self.agents + other.agents,
            self.not_online + other.not_online,
            self.drifted + other.drifted,
            self.failed + other.failed,
        )


def group_by_label(environments: QuerySet[Any], key: str, condition: Q) -> list[Group]:
    """Group the environments' enrolled agents by the value of a label, in the order of ``largest``.

    ``condition`` limits the pulses. Returns at most ``MAX_GROUPS`` + 1 groups.
    """
    totals = None
    if not condition:
        counted = LabelCount.objects.filter(environment__in=environments, key=key).order_by()
        totals = dict[str | None, int](counted.values_list("value").annotate(agents=Sum("count")))
        everyone = PulseCount.objects.filter(environment__in=environments).aggregate(agents=Sum("count"))["agents"]
        totals[None] = (everyone or 0) - sum(totals.values())
    return largest(_group(environments, condition, _value_of(key), totals))


def _value_of(key: str) -> Func:
    """Return an expression for the value of a label. Django's own expression reads a key of digits as a list index."""
    return Func(
        F("agent__labels"),
        Value(key, TextField()),
        arg_joiner=" ->> ",
        template="(%(expressions)s)",
        output_field=CharField(),
    )


def group_by_bundle(environments: QuerySet[Any], condition: Q) -> list[Group]:
    """Group the environments' enrolled agents by the hash of the running bundle.

    ``condition`` limits the pulses, as in ``group_by_label``. Returns all groups, because several bundles may contain
    the same version.
    """
    totals = None
    if not condition:
        counted = PulseCount.objects.filter(environment__in=environments).order_by()
        totals = dict[str | None, int](counted.values_list("running_bundle_hash").annotate(agents=Sum("count")))
    return _group(environments, condition, "running_bundle_hash", totals)


def largest(groups: Collection[Group]) -> list[Group]:
    """Return the largest groups first, at most ``MAX_GROUPS`` + 1. The group without a value is last, or left out."""
    return sorted(groups, key=lambda group: (group.value is None, -group.agents, group.value))[: MAX_GROUPS + 1]


def _group(environments: Any, condition: Q, by: Any, totals: Mapping[str | None, int] | None) -> list[Group]:
    found = Pulse.objects.filter(environment__in=environments).filter(condition).order_by()
    if totals is not None:  # the other agents only count in the totals
        found = found.filter(Q(online_until__lt=timezone.now()) | Q(drifted=True) | Q(status=Heartbeat.Status.FAILED))
    counted = found.values_list(by).annotate(
        agents=Count("pk"),
        not_online=Count("pk", filter=~facts.has_liveness(Liveness.ONLINE)),
        drifted=Count("pk", filter=Q(drifted=True)),
        failed=Count("pk", filter=Q(status=Heartbeat.Status.FAILED)),
    )
    groups = [Group(*row) for row in counted]
    if totals is None:
        return groups
    troubled = defaultdict(lambda: Group(None), {group.value: group for group in groups})
    return [
        Group(value, agents, troubled[value].not_online, troubled[value].drifted, troubled[value].failed)
        for value, agents in totals.items()
        if agents > 0
    ]
