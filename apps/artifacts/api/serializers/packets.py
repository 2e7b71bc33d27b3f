"""Serializers of the packets of approvals."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.artifacts.api.serializers.regressions import DifferenceGroupSerializer, GroupFixtureSerializer
from apps.artifacts.services.packets import MAX_AGENT_GROUPS, MAX_COMPARED, MAX_REMOVED
from apps.pipelines.api.serializers import ChangeSerializer
from apps.releases.api.serializers.deployments import BlockerSerializer, DifferenceExplanationSerializer
from byteor.engine.machines import RegressionStatus
from byteor.engine.replay_gate import GateMode


class PipelineChangesSerializer(serializers.Serializer[Any]):
    from_version = serializers.CharField(allow_null=True)
    to_version = serializers.CharField()
    changes = ChangeSerializer(many=True)
    descriptions = {
        "from_version": "The version with which `to_version` is compared, normally the version of the replaced "
        "deployment. Null if there is none.",
        "to_version": "The version that is deployed.",
        "changes": "The parts of the pipeline that change. Empty if `from_version` is null.",
    }


class ConfigChangeSerializer(serializers.Serializer[Any]):
    change = serializers.ChoiceField(["added", "removed", "changed"])
    what = serializers.CharField()
    name = serializers.CharField(allow_blank=True)
    old = serializers.CharField(allow_null=True)
    new = serializers.CharField(allow_null=True)
    descriptions = {
        "change": "Whether the value was added, removed or changed.",
        "what": "The field of the config bundle, for example `stage_config`.",
        "name": "The path of the value inside the field, with `/` between keys. Empty for the field itself.",
        "old": "The value before the change as JSON, or `secret_ref NAME` for a reference to a secret. Null if it was "
        "added.",
        "new": "The value after the change, in the same form. Null if it was removed.",
    }


class OutcomeCountSerializer(serializers.Serializer[Any]):
    equal = serializers.IntegerField()
    different = serializers.IntegerField()
    failed = serializers.IntegerField()
    unstable = serializers.IntegerField()
    not_tested = serializers.IntegerField()
    descriptions = {
        "equal": "The number of fixtures without a difference.",
        "different": "The number of fixtures that show differences.",
        "failed": "The number of fixtures for which the candidate or the process of the test failed.",
        "unstable": "The number of fixtures for which a stage gave different results for the same records.",
        "not_tested": "The number of fixtures that could not be tested.",
    }


class PacketBaselineSerializer(serializers.Serializer[Any]):
    config_hash = serializers.CharField()
    version = serializers.CharField(allow_null=True)
    config_bundle = serializers.CharField(allow_null=True)
    agents = serializers.IntegerField()
    share = serializers.FloatField()
    outcomes = OutcomeCountSerializer()
    descriptions = {
        "config_hash": "The config hash of the configuration.",
        "version": "The name of the configuration's version. Null if its config bundles were deleted.",
        "config_bundle": "The name of the newest config bundle with this config hash. Null if all of them were "
        "deleted.",
        "agents": "The number of agents that ran the configuration when the regression was requested. If the "
        "regression was started for the deployment, only the agents in the target are counted. Otherwise, all agents "
        "of the environment are counted.",
        "share": "`agents` divided by the number of all counted agents that ran the pipeline, from 0 to 1.",
        "outcomes": "The number of fixtures with each outcome in the comparison with this configuration.",
    }


class PacketProgressSerializer(serializers.Serializer[Any]):
    done = serializers.IntegerField()
    total = serializers.IntegerField()
    descriptions = {
        "done": "The number of results that have an outcome.",
        "total": "The number of results. It is 0 until the regression has started.",
    }


class PacketWorkSerializer(serializers.Serializer[Any]):
    candidate = serializers.IntegerField()
    baseline = serializers.IntegerField()
    increase_percent = serializers.FloatField(allow_null=True)
    descriptions = {
        "candidate": "The work of the candidate.",
        "baseline": "The work of the configurations that the candidate was compared with.",
        "increase_percent": "How much more work the candidate needs than the other configurations, in percent. "
        "Negative if it needs less. Null if `baseline` is 0.",
    }


class PacketRegressionSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(list(RegressionStatus))
    error = serializers.CharField(allow_null=True)
    progress = PacketProgressSerializer()
    fixtures = serializers.IntegerField()
    vacuous = serializers.BooleanField()
    baselines = PacketBaselineSerializer(many=True)
    golden = OutcomeCountSerializer()
    work = PacketWorkSerializer()
    descriptions = {
        "id": "The id of the regression.",
        "status": "The status of the regression.",
        "error": "Why the regression was canceled or could not be completed. Otherwise null.",
        "progress": "The progress of the regression.",
        "fixtures": "The number of fixtures of the pipeline that had not expired when the regression started. It is 0 "
        "until then.",
        "vacuous": "Whether the regression was completed but tested nothing.",
        "baselines": "The configurations that the candidate is compared with.",
        "golden": "The number of fixtures with each outcome in the comparison with golden results.",
        "work": "The work of the replays. Fixtures with golden results are not counted. The work is the same on every "
        "machine, and 0 until the regression has finished.",
    }


class GroupAcceptanceSerializer(serializers.Serializer[Any]):
    acceptance_id = serializers.UUIDField()
    accepted_by = serializers.CharField()
    reason = serializers.CharField()
    accepted_at = serializers.DateTimeField()
    baselines = serializers.ListField(child=serializers.CharField(allow_null=True))
    descriptions = {
        "acceptance_id": "The id of the acceptance.",
        "accepted_by": "The e-mail address of the person, or `key` and the name of the API key.",
        "reason": "Why the difference is wanted.",
        "accepted_at": "When the difference was accepted.",
        "baselines": "The config hashes of the baselines for which the packet lists this acceptance. A null in the "
        "list stands for golden results.",
    }


class UnseenFixturesSerializer(serializers.Serializer[Any]):
    count = serializers.IntegerField()
    fixtures = GroupFixtureSerializer(many=True)
    descriptions = {"count": "The number of fixtures.", "fixtures": "The first five fixtures, sorted by name."}


class PacketGroupSerializer(DifferenceGroupSerializer):
    accepted = GroupAcceptanceSerializer(many=True)
    counts = serializers.BooleanField()
    unseen = UnseenFixturesSerializer(allow_null=True)
    explanations = serializers.ListField(child=serializers.CharField())
    descriptions = {
        **DifferenceGroupSerializer.descriptions,
        "accepted": "The acceptances of the difference. For each baseline from which the candidate differs in this "
        "way, the list contains an acceptance that counts for this deployment. If there is none, it contains the "
        "oldest valid acceptance for this baseline, if any.",
        "counts": "Whether the difference is accepted for all baselines from which the candidate differs in this way, "
        "by acceptances that count for this deployment.",
        "unseen": "The fixtures that show the difference in this regression, but did not show it in the other "
        "regressions in which it was accepted. In a deleted regression, no fixture counts as having shown it. There "
        "are none if the difference was not accepted or was accepted in this regression. A packet compares this "
        f"regression with at most {MAX_COMPARED} others. Null if the difference was accepted in a regression that is "
        "not compared, or if one of the regressions has too many results to compare.",
        "explanations": "The requester's explanations of the difference.",
    }


class CaptureSerializer(serializers.Serializer[Any]):
    fixture_id = serializers.UUIDField()
    name = serializers.CharField()
    artifact_id = serializers.UUIDField(allow_null=True)
    descriptions = {
        "fixture_id": "The id of the fixture, even if it was deleted.",
        "name": "The name of the fixture when the regression started.",
        "artifact_id": "The id of the artifact with the capture. Null if the fixture was deleted.",
    }


class RunningConfigurationSerializer(serializers.Serializer[Any]):
    config_hash = serializers.CharField()
    version = serializers.CharField(allow_null=True)
    config_bundle = serializers.CharField(allow_null=True)
    agents = serializers.IntegerField()
    share = serializers.FloatField()
    tested = serializers.BooleanField()
    descriptions = {
        "config_hash": "The config hash of the configuration.",
        "version": "The name of the configuration's version. Null if its config bundles were deleted.",
        "config_bundle": "The name of the newest config bundle with this config hash. Null if all of them were "
        "deleted.",
        "agents": "The number of the target's agents that run the configuration now.",
        "share": "`agents` divided by the number of the target's agents that run any known configuration of the "
        "pipeline, from 0 to 1.",
        "tested": "Whether the regression compared the candidate with the configuration on at least one fixture.",
    }


class RemovedFixtureSerializer(serializers.Serializer[Any]):
    fixture_id = serializers.UUIDField()
    name = serializers.CharField()
    why = serializers.ChoiceField(["deleted", "expired"])
    removed_at = serializers.DateTimeField()
    removed_by = serializers.CharField(allow_null=True)
    descriptions = {
        "fixture_id": "The id of the fixture.",
        "name": "The name of the fixture.",
        "why": "Whether the fixture was deleted or has expired.",
        "removed_at": "When the fixture was deleted or expired.",
        "removed_by": "Who deleted the fixture: the e-mail address of a person, or `key` and the name of an API key. "
        "Null if it expired.",
    }


class PacketRollbackSerializer(serializers.Serializer[Any]):
    deployment_id = serializers.UUIDField(allow_null=True)
    version = serializers.CharField(allow_null=True)
    config_hash = serializers.CharField(allow_null=True)
    reason = serializers.CharField(allow_null=True)
    descriptions = {
        "deployment_id": "The id of the deployment that would be restored. Null if there is none.",
        "version": "The name of the version of that deployment. Null if there is no such deployment.",
        "config_hash": "The config hash of that deployment. Null if there is no such deployment.",
        "reason": "Why a rollback cannot restore a deployment. Null if it can.",
    }


class PacketGateSerializer(serializers.Serializer[Any]):
    setting = serializers.ChoiceField(list(GateMode))
    override = serializers.CharField(allow_null=True)
    blockers = BlockerSerializer(many=True)
    descriptions = {
        "setting": "The environment's `replay_gate` when the deployment was requested.",
        "override": "The reason to override the replay gate. Null if the deployment does not override it.",
        "blockers": "Why the replay gate blocks the deployment. Empty if it does not.",
    }


class PacketSerializer(serializers.Serializer[Any]):
    """The packet of an approval: what a reviewer should know before the decision."""

    approval_id = serializers.UUIDField()
    deployment_id = serializers.UUIDField()
    headline = serializers.CharField()
    pipeline = PipelineChangesSerializer()
    configuration = ConfigChangeSerializer(many=True)
    regression = PacketRegressionSerializer(allow_null=True)
    groups = PacketGroupSerializer(many=True)
    more = serializers.IntegerField()
    captures = CaptureSerializer(many=True)
    agents = RunningConfigurationSerializer(many=True)
    other_agents = serializers.IntegerField()
    removed_fixtures = RemovedFixtureSerializer(many=True)
    rollback = PacketRollbackSerializer()
    explanations = DifferenceExplanationSerializer(many=True)
    gate = PacketGateSerializer()
    truncated = serializers.BooleanField()
    descriptions = {
        "approval_id": "The id of the approval.",
        "deployment_id": "The id of the deployment that the approval is for.",
        "headline": "The result of the regression as text. It begins with `Nothing was tested` if nothing was tested.",
        "pipeline": "What changes in the pipeline.",
        "configuration": "What changes in the configuration. If `from_version` is null, every value is added.",
        "regression": "The regression that the replay gate evaluates. Null if the gate was off when the "
        "deployment was requested, or if the regression was deleted.",
        "groups": "What changes in the output: the groups of differences, the most frequent first. Empty until the "
        "regression has finished.",
        "more": "The number of further differences that belong to no group and cannot be accepted.",
        "captures": "The fixtures that show differences.",
        "agents": "The configurations of the pipeline that the target's agents run now, those with most agents first, "
        f"at most {MAX_AGENT_GROUPS}.",
        "other_agents": "The number of the target's agents that run no known configuration of the pipeline now.",
        "removed_fixtures": "The fixtures of the pipeline that were deleted or have expired since its current "
        f"deployment was activated, the last removed first, at most {MAX_REMOVED}. Empty without a current deployment.",
        "rollback": "The deployment that a rollback would restore now. A rollback restores the configuration that each "
        "agent ran before. If that is not possible, the agent gets the configuration of the restored deployment.",
        "explanations": "The requester's explanations of differences that the regression does not show.",
        "gate": "The replay gate of the deployment.",
        "truncated": "Whether something is left out because a response is limited to 4 MiB, or because of the limit of "
        "a list. First the payloads of the last examples are left out, and then the last groups. Use `getRegression` "
        "with its parameter `group` to get the example of a group.",
    }
