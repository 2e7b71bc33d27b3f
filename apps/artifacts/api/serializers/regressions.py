"""Serializers of regressions and acceptances, and of the requests for them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.artifacts.api.serializers.captures import AnyJSONField
from apps.pipelines.models import Draft, Version
from apps.releases.api.serializers.deployments import GROUP_ID
from apps.releases.models import Acceptance, ConfigBundle, Regression
from apps.releases.services.regression_queue import MAX_BASELINES
from byteor.engine.regression import MAX_GROUPS
from byteor.engine.replay import FixtureOutcome
from byteor.engine.replay.json_difference import Kind
from byteor_cloud.api.fields import EnvironmentRelatedField, HashField, ModelSerializer, StrictSerializer, TextField

_EGRESS = "The egress at which the outputs differ. Null for a stop or a side effect."
_COUNTED = (
    "If the regression was started for a deployment, only the agents in the deployment's target are counted. "
    "Otherwise, all agents of the environment are counted."
)


class RequestRegressionSerializer(StrictSerializer):
    """The request to test a candidate."""

    config_bundle_id = EnvironmentRelatedField(
        source="config_bundle",
        queryset=ConfigBundle.objects.select_related("version"),
        what="config bundle",
        required=False,
    )
    version_id = EnvironmentRelatedField(
        source="version", queryset=Version.objects.all(), what="version", required=False
    )
    draft_id = EnvironmentRelatedField(source="draft", queryset=Draft.objects.all(), what="draft", required=False)
    against = serializers.ListField(child=HashField(), min_length=1, max_length=MAX_BASELINES, required=False)
    descriptions = {
        "config_bundle_id": "The id of the config bundle to test.",
        "version_id": (
            "The id of the version to test, instead of a config bundle. A stage of the version gets the parameters of "
            "the stage with the same id and op in the configuration that the version is compared with."
        ),
        "draft_id": "The id of the draft to test, instead of a config bundle. Its stages get their parameters in the "
        "same way as those of a version.",
        "against": (
            f"The config hashes of at most {MAX_BASELINES} configurations to compare with. Each must have a config "
            "bundle of the same pipeline in this environment. By default, the candidate is compared with the "
            f"configurations that the environment's agents run, at most the {MAX_BASELINES} with most agents."
        ),
    }

    def validate_against(self, value: list[str]) -> list[str]:
        """Reject a config hash that occurs twice."""
        if len(set(value)) < len(value):
            raise serializers.ValidationError("May not contain the same config hash twice.", code="duplicate")
        return value


class CancelRegressionSerializer(StrictSerializer):
    """The request to cancel a regression."""

    reason = TextField(max_length=2000, required=False, allow_blank=True, default="")
    descriptions = {"reason": "Why the regression is canceled."}


class AcceptDifferencesSerializer(StrictSerializer):
    """The request to accept differences."""

    groups = serializers.ListField(
        child=TextField(pattern=GROUP_ID, rule="Must be the id of a group."), min_length=1, max_length=MAX_GROUPS
    )
    reason = TextField(max_length=2000)
    descriptions = {
        "groups": "The ids of the groups of differences to accept. They must be in this regression.",
        "reason": "Why the differences are wanted.",
    }


class AcceptedDifferenceSerializer(serializers.Serializer[Any]):
    group = serializers.CharField()
    baseline = serializers.CharField(allow_null=True)
    descriptions = {
        "group": "The id of the group of differences.",
        "baseline": "The config hash of the baseline from which the candidate differs. Null for golden results.",
    }


class AcceptanceSerializer(ModelSerializer):
    user_id = serializers.UUIDField(allow_null=True)
    differences = AcceptedDifferenceSerializer(many=True)
    descriptions = {
        "regression_id": "The id of the regression that showed the differences. Null if the regression was deleted.",
        "config_hash": "The config hash for which the differences are accepted.",
        "differences": "The accepted groups of differences. A group that occurs with several baselines is listed once "
        "for each of them.",
        "reason": "Why the differences are wanted.",
        "user_id": "The id of the person who accepted. Null for an API key.",
        "accepted_by": "The e-mail address of the person, or `key` and the name of the API key.",
        "ended_at": "When the acceptance ended because a deployment of the configuration became current. Null until "
        "then.",
    }

    class Meta:
        model = Acceptance
        fields = [
            "id", "environment_id", "regression_id", "config_hash", "differences", "reason", "user_id", "accepted_by",
            "ended_at", "created_at",
        ]  # fmt: skip


class BaselineSerializer(serializers.Serializer[Any]):
    config_hash = serializers.CharField()
    config_bundle_id = serializers.UUIDField()
    version_id = serializers.UUIDField()
    agents = serializers.IntegerField()
    share = serializers.FloatField()
    descriptions = {
        "config_hash": "The config hash of the configuration.",
        "config_bundle_id": "The id of a config bundle with this config hash.",
        "version_id": "The id of the version of that config bundle.",
        "agents": f"The number of agents that ran the configuration at the time of the request. {_COUNTED}",
        "share": "`agents` divided by the number of all counted agents that ran the pipeline, from 0 to 1.",
    }


class UntestedSerializer(serializers.Serializer[Any]):
    config_hash = serializers.CharField()
    agents = serializers.IntegerField()
    descriptions = {
        "config_hash": "The config hash of the configuration.",
        "agents": f"The number of agents that ran the configuration at the time of the request. {_COUNTED}",
    }


class RegressionProgressSerializer(serializers.Serializer[Any]):
    done = serializers.IntegerField(source="progress_done")
    total = serializers.IntegerField(source="progress_total")
    descriptions = {
        "done": "The number of results that have an outcome.",
        "total": "The number of results: one for each fixture with a golden result, and for each other fixture one for "
        "each configuration to compare with. It is 0 until the regression has started.",
    }


class VerdictCountSerializer(serializers.Serializer[Any]):
    reused = serializers.IntegerField()
    computed = serializers.IntegerField()
    descriptions = {
        "reused": "The number of results whose verdict was known: another regression had computed it, or this "
        "regression had computed it for another fixture with equal records.",
        "computed": "The number of verdicts that this regression computed.",
    }


class RegressionWorkSerializer(serializers.Serializer[Any]):
    candidate = serializers.IntegerField(source="work_candidate")
    baseline = serializers.IntegerField(source="work_baseline")
    descriptions = {
        "candidate": "The work of the candidate.",
        "baseline": "The work of the configurations that the candidate was compared with.",
    }


class RegressionResultSerializer(serializers.Serializer[Any]):
    fixture_id = serializers.UUIDField()
    fixture_name = serializers.CharField()
    baseline = serializers.CharField(allow_null=True)
    outcome = serializers.ChoiceField([each.value for each in FixtureOutcome], allow_null=True)
    groups = serializers.ListField(child=serializers.CharField())
    error = serializers.CharField(allow_null=True)
    stage = serializers.CharField(allow_null=True)
    descriptions = {
        "fixture_id": "The id of the fixture, even if it was deleted.",
        "fixture_name": "The name of the fixture when the regression started.",
        "baseline": "The config hash that the candidate was compared with. Null for a fixture with a golden result.",
        "outcome": (
            "The verdict. `failed`: the candidate cannot run, cannot use the records or exceeded a limit, or the "
            "process of the test failed twice. `unstable`: a stage gave different results for the same records. "
            "`not_tested`: the fixture was deleted or has expired, its `expect` was changed to or from `same`, its "
            "artifact is no longer stored or cannot be read, or the compared configuration was deleted or cannot run. "
            "Null until the verdict is known."
        ),
        "groups": "The ids of the groups of differences that the fixture shows. Empty unless `outcome` is `different`.",
        "error": "Why the outcome is `failed` or `not_tested`, or why a difference from a golden result belongs to no "
        "group. Otherwise null.",
        "stage": "The id of a stage whose input or output differed between two runs with the same records. Null if "
        "`outcome` is not `unstable`, or if no such stage is known.",
    }


class ShownPayloadSerializer(serializers.Serializer[Any]):
    json = AnyJSONField()
    payload_base64 = serializers.CharField(allow_null=True)
    truncated = serializers.BooleanField()
    descriptions = {
        "json": "The payload as JSON. Null if it is incomplete or not valid JSON, or if the server refuses the JSON, "
        "for example because of duplicate keys.",
        "payload_base64": (
            "The payload in Base64, at most its first 16 KiB. Null if `json` is not null and contains each number with "
            "the same digits as the payload."
        ),
        "truncated": "Whether only the first part of the payload is returned.",
    }


class DifferenceExampleSerializer(serializers.Serializer[Any]):
    ingress = serializers.CharField()
    sequence = serializers.IntegerField()
    before = ShownPayloadSerializer(allow_null=True)
    after = ShownPayloadSerializer(allow_null=True)
    stage = serializers.CharField(allow_null=True)
    descriptions = {
        "ingress": "The ingress of the input record.",
        "sequence": "The sequence number of the input record.",
        "before": (
            "The output record, stop or side effect of the compared configuration. Null if it has none, if the "
            "payload is left out (see `truncated`), and for callers without the permission `environment:operate`."
        ),
        "after": "The output record, stop or side effect of the candidate. Null in the same cases as `before`.",
        "stage": "The id of the stage that dropped the record, stopped the pipeline or has the side effect. Otherwise, "
        "the id of the first stage that changed the record differently. Null if it is unknown.",
    }


class GroupBaselineSerializer(serializers.Serializer[Any]):
    config_hash = serializers.CharField(allow_null=True)
    count = serializers.IntegerField()
    descriptions = {
        "config_hash": "The config hash that the candidate was compared with. Null for golden results.",
        "count": "The number of differences in the comparison with this configuration or with golden results.",
    }


class GroupFixtureSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    descriptions = {"id": "The id of the fixture, even if it was deleted.", "name": "The name of the fixture."}


class DifferenceGroupSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    egress = serializers.CharField(allow_null=True)
    kind = serializers.ChoiceField([each.value for each in Kind])
    pointers = serializers.ListField(child=serializers.CharField(allow_blank=True))
    code = serializers.CharField(allow_null=True)
    count = serializers.IntegerField()
    baselines = GroupBaselineSerializer(many=True)
    fixture_count = serializers.IntegerField()
    fixtures = GroupFixtureSerializer(many=True)
    example = DifferenceExampleSerializer(allow_null=True)
    descriptions = {
        "id": "The id of the group. Equal differences have the same id in all regressions.",
        "egress": _EGRESS,
        "kind": (
            "What differs. `changed`: members of a JSON output record. `bytes`: the bytes of an output record whose "
            "JSON values are equal or cannot be compared. `missing`: only the compared configuration has the output "
            "record. `extra`: only the candidate has the output record. `stop`: whether or where the pipeline stops. "
            "`action`: a side effect."
        ),
        "pointers": "JSON Pointers to the members that differ, with `*` for any item of an array. Empty unless `kind` "
        "is `changed`.",
        "code": "A stable code for the reason of a drop or a stage error, or the op of a side effect. Null if there is "
        "none.",
        "count": "The number of differences in all comparisons.",
        "baselines": "The number of differences in the comparison with each configuration.",
        "fixture_count": "The number of fixtures that show the difference.",
        "fixtures": "The first fixtures that show the difference, at most five.",
        "example": "The first difference of the group. Null if the environment no longer has the capture, or if the "
        "example is not stored: its capture or verdict was deleted, or the organization has too many examples.",
    }


class RegressionSerializer(ModelSerializer):
    progress = RegressionProgressSerializer(source="*")
    baselines = BaselineSerializer(many=True)
    not_tested = UntestedSerializer(many=True)
    verdicts = VerdictCountSerializer(source="*")
    work = RegressionWorkSerializer(source="*")
    # These fields are null in a list, because a row has no ``details``. For a single regression, the view adds them.
    results = RegressionResultSerializer(many=True, source="details.results", allow_null=True)
    groups = DifferenceGroupSerializer(many=True, source="details.groups", allow_null=True)
    next_after = serializers.IntegerField(source="details.next_after", allow_null=True)
    truncated = serializers.BooleanField(source="details.truncated", allow_null=True)
    descriptions = {
        "status": (
            "The status of the regression. `failed`: a fixture has the outcome `failed` or `unstable`, or the "
            "regression could not be completed. `differs`: no fixture failed, but at least one shows a difference. "
            "`passed`: no fixture failed or shows a difference."
        ),
        "pipeline": "The name of the pipeline whose fixtures are tested.",
        "config_bundle_id": "The id of the tested config bundle. Null if a version or a draft is tested.",
        "version_id": "The id of the tested version. Null if a config bundle or a draft is tested.",
        "draft_id": "The id of the tested draft. Null if a config bundle or a version is tested, and if the draft was "
        "deleted.",
        "config_hash": "The config hash of the tested config bundle. Null if a version or a draft is tested.",
        "of_current": "Whether the worker requested the regression, to test the configuration that the environment "
        "runs now. Only golden fixtures are tested. If there are any, the worker requests one such regression after a "
        "release (unless an earlier one has tested the same config bundle with the same fixtures and engine), after a "
        "fixture was added, after the `expect` or `expires_at` of a fixture was changed, after a configuration of the "
        "pipeline became known bad or was cleared, and after the engine has changed.",
        "progress": "The progress of the regression.",
        "baselines": "The configurations that the candidate is compared with.",
        "not_tested": "Other configurations of the pipeline that agents ran at the time of the request. The candidate "
        "is not compared with them. Empty if `of_current` is true.",
        "fixtures": "The number of tested fixtures: those of the pipeline that had not expired when the regression "
        "started. If `of_current` is true, only golden fixtures are tested. It is 0 until the start.",
        "vacuous": (
            "Whether the regression was completed but tested nothing: there are no fixtures, there is nothing to "
            "compare with, or each result is `not_tested`. A vacuous regression has the status `passed`."
        ),
        "verdicts": "How many verdicts were known, and how many were computed.",
        "results": "The verdict of each fixture and compared configuration. Null in a list; `getRegression` returns "
        "them.",
        "groups": (
            "The differences of all fixtures, grouped by what differs, the most frequent first. Empty until the "
            "regression has finished, and if `getRegression` was called with `after`. Null in a list; `getRegression` "
            "returns them."
        ),
        "more": "The number of further differences that belong to no group. Reasons: the regression already has 1,000 "
        "groups, the groups of a fixture are too many or too large, or a difference from a golden result cannot be "
        "grouped (see the result's `error`).",
        "truncated": (
            "Whether examples, results or groups are incomplete because a response is limited to 4 MiB. First the "
            "payloads of the last examples are left out, then the last results, and then the last groups. Use `group` "
            "to get the example of a group, and `after` to get further results. Null in a list."
        ),
        "next_after": "The value of `after` for further results. Null if there are none, and in a list.",
        "work": "The work of the replays, in the units of a replay's work limit. Fixtures with golden results are not "
        "counted. The work is the same on every machine. It is 0 until the regression has finished.",
        "summary": "The result as Markdown that fits into a comment on a pull request. If the regression was canceled "
        "or could not be completed, it contains the reason. Empty while the regression is queued or running.",
        "error": "Why the regression was canceled or could not be completed. Otherwise null, even if a fixture failed.",
        "started_at": "When the regression started. Null until then.",
        "finished_at": "When the regression finished. Null until then.",
    }

    class Meta:
        model = Regression
        fields = [
            "id", "environment_id", "status", "pipeline", "config_bundle_id", "version_id", "draft_id", "config_hash",
            "of_current", "progress", "baselines", "not_tested", "fixtures", "vacuous", "verdicts", "results",
            "groups", "more", "truncated", "next_after", "work", "summary", "error", "requested_by", "started_at",
            "finished_at", "created_at",
        ]  # fmt: skip
