"""Serializers and fields for a deployment's typed values, such as targets, strategies and break-glass requests."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.fleet.api.serializers import LabelsField
from byteor.engine.break_glass import BreakGlassRequest
from byteor.engine.rollout import Hold, Strategy, StrategyKind
from byteor.engine.target import Target
from byteor_cloud.api.fields import IdField, StrictSerializer, TextField


class TargetSerializer(StrictSerializer):
    """The agents that a deployment is for. Exactly one of the fields is present."""

    agents = serializers.ListField(child=IdField(), required=False, min_length=1, max_length=100_000)
    selector = LabelsField(required=False)
    all = serializers.BooleanField(required=False)

    descriptions = {
        "agents": "The ids of the agents.",
        "selector": "Labels. The target is all agents that have all of these labels, except drained ones.",
        "all": "All agents of the environment, except drained ones. The only accepted value is true.",
    }

    def validate(self, attrs: dict[str, Any]) -> Target:
        """Return the target. Raises ValidationError unless there is exactly one field and it selects agents."""
        if len(attrs) != 1 or attrs.get("all") is False or attrs.get("selector") == {}:
            raise serializers.ValidationError("Send exactly one of agents, selector (not empty) and all: true.")
        return Target.of_agents(attrs["agents"]) if "agents" in attrs else Target(selector=attrs.get("selector"))

    def to_representation(self, instance: Target) -> dict[str, Any]:
        """Return only the field that selects the agents."""
        return super().to_representation(instance.stored())


class StrategySerializer(StrictSerializer):
    """How a deployment spreads over the agents of its target."""

    kind = serializers.ChoiceField(list(StrategyKind))
    percents = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=100),
        required=False,
        min_length=1,
        max_length=100,
    )
    holds = serializers.ListField(
        child=serializers.ChoiceField(list(Hold), allow_null=True), required=False, min_length=1, max_length=100
    )
    pause_s = serializers.IntegerField(required=False, min_value=0, max_value=7 * 86400)
    failure_threshold_percent = serializers.IntegerField(required=False, min_value=0, max_value=100)
    auto_rollback = serializers.BooleanField(required=False)

    sometimes_absent = frozenset({"percents", "holds", "pause_s"})
    descriptions = {
        "kind": "Whether the deployment is offered to all agents in one wave (`all_at_once`) or in several `waves`.",
        "percents": "The cumulative percentage of the target's agents that each wave reaches, increasing to 100. Only "
        "for `waves`. Defaults to 5, 25 and 100.",
        "holds": "What must happen before each wave starts, once the previous wave has finished. One entry for each "
        "entry of `percents`. `manual`: somebody with the permission `environment:operate` starts the wave with "
        "`next-wave`. `approval`: people approve what the earlier waves did. Null: nothing. The first entry must be "
        "null. If a wave has no agents, its hold applies to the next wave that has agents. Only for `waves`. Defaults "
        "to no holds.",
        "pause_s": "The pause between two waves, in seconds. Only for `waves`. Defaults to 0.",
        "failure_threshold_percent": "The percentage of a wave's counted agents that may fail. If more of them fail, "
        "the deployment fails. Defaults to 0.",
        "auto_rollback": (
            "Whether the deployment is rolled back automatically, if possible, when too many agents fail, a wave is "
            "denied, or the configuration becomes known bad. Defaults to true for `waves` and to false for "
            "`all_at_once`."
        ),
    }

    def validate(self, attrs: dict[str, Any]) -> Strategy:
        """Return the strategy, with the defaults of its kind. Raises ValidationError."""
        kind, options = attrs["kind"], {name: value for name, value in attrs.items() if name != "kind"}
        if kind == StrategyKind.ALL_AT_ONCE:
            if extra := {"holds", "percents", "pause_s"} & options.keys():
                raise serializers.ValidationError(dict.fromkeys(extra, "This field is permitted only for waves."))
            return Strategy.all_at_once(**options)
        strategy = Strategy.waves(**options)
        if list(strategy.percents) != sorted(set(strategy.percents)) or strategy.percents[-1] != 100:
            raise serializers.ValidationError({"percents": "The percentages must increase and end with 100."})
        holds = options.get("holds", [None] * len(strategy.percents))
        if len(holds) != len(strategy.percents):
            detail = f"Send one entry for each wave. The number of waves is {len(strategy.percents)}."
            raise serializers.ValidationError({"holds": detail})
        if holds[0] is not None:
            raise serializers.ValidationError({"holds": "The first wave cannot have a hold."})
        return strategy

    def to_representation(self, instance: Strategy) -> dict[str, Any]:
        """Return only the options of the strategy's kind."""
        return super().to_representation(instance.stored())


class BreakGlassSerializer(StrictSerializer):
    """A deployment that can start before approval. If it is not approved in time, it is rolled back if possible."""

    reason = TextField(max_length=2000)
    expires_in_s = serializers.IntegerField(required=False, min_value=60, max_value=30 * 86400, write_only=True)
    by = serializers.CharField(read_only=True)
    approve_by = serializers.DateTimeField(read_only=True)

    descriptions = {
        "reason": "Why the deployment cannot wait for an approval.",
        "expires_in_s": (
            "The number of seconds within which the deployment must be approved. Its requester cannot approve it. "
            "Defaults to the environment's `approval_ttl_s`, which is also the maximum."
        ),
        "by": "The e-mail address of the person who deployed by break-glass.",
        "approve_by": "The time by which the deployment must be approved. Its requester cannot approve it.",
    }

    def validate(self, attrs: dict[str, Any]) -> BreakGlassRequest:
        """Return the request for break-glass."""
        return BreakGlassRequest(**attrs)


class StoredFormField(serializers.DictField):
    """A typed value in its stored form."""

    def to_representation(self, value: Any) -> dict[str, Any]:
        """Return the stored form."""
        return super().to_representation(value.stored())
