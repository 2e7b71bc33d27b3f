"""Serializers of the matrix of a project."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.releases.services.matrix import MAX_CELLS, MAX_ENVIRONMENTS, UNFINISHED


class MatrixVersionSerializer(serializers.Serializer[Any]):
    """The version of a current deployment."""

    id = serializers.UUIDField()
    number = serializers.IntegerField()
    spec_hash = serializers.CharField()
    descriptions = {
        "number": "The number of the version. Environments number their versions independently.",
        "spec_hash": "The spec hash of the version.",
    }


class MatrixDeploymentSerializer(serializers.Serializer[Any]):
    """An unfinished deployment."""

    deployment_id = serializers.UUIDField()
    status = serializers.ChoiceField([str(status) for status in UNFINISHED])
    descriptions = {"deployment_id": "The id of the deployment.", "status": "The status of the deployment."}


class MatrixCellSerializer(serializers.Serializer[Any]):
    """A pipeline in one environment."""

    environment_id = serializers.UUIDField()
    deployment_id = serializers.UUIDField(allow_null=True)
    config_bundle_id = serializers.UUIDField(allow_null=True)
    version = MatrixVersionSerializer(allow_null=True)
    config_hash = serializers.CharField(allow_null=True)
    agents = serializers.IntegerField()
    of = serializers.IntegerField()
    under_way = MatrixDeploymentSerializer(allow_null=True)
    differs_from_previous = serializers.BooleanField(allow_null=True)
    descriptions = {
        "deployment_id": "The id of the pipeline's current deployment in this environment. Null if there is none.",
        "config_bundle_id": "The id of the current deployment's config bundle. Null if `deployment_id` is null.",
        "version": "The version of the current deployment. Null if `deployment_id` is null.",
        "config_hash": "The config hash of the current deployment. Null if `deployment_id` is null.",
        "agents": "The number of agents that run the bundle of the current deployment. 0 if `deployment_id` is null.",
        "of": "The number of agents that are enlisted in the current deployment, including late joiners and recently "
        "decommissioned agents. 0 if `deployment_id` is null.",
        "under_way": "The unfinished deployment of the pipeline in this environment. If there are several, the one "
        "whose status comes first in the order `rolling_back`, `deploying`, `building`, `approved`, "
        "`pending_approval`. If several have this status, the oldest of them. Null if there is none.",
        "differs_from_previous": "Whether the config hash differs from the one in the previous environment. Because a "
        "config hash covers the spec hash, equal config hashes mean equal specs and configurations. Null for the "
        "first environment, and if the pipeline has no current deployment in this environment or in the previous one.",
    }


class MatrixRowSerializer(serializers.Serializer[Any]):
    """A pipeline in each environment."""

    name = serializers.CharField()
    environments = MatrixCellSerializer(many=True)
    descriptions = {
        "name": "The name of the pipeline.",
        "environments": "The pipeline in each environment of the project, in the order of the environments' positions.",
    }


class MatrixSerializer(serializers.Serializer[Any]):
    """What runs in each environment, by pipeline."""

    pipelines = MatrixRowSerializer(many=True)
    truncated = serializers.BooleanField()
    next_after = serializers.CharField(allow_null=True)
    descriptions = {
        "pipelines": "The pipelines that have a current or an unfinished deployment in an environment of the project, "
        "sorted by name.",
        "truncated": "Whether further pipelines or environments are left out. The response contains at most "
        f"{MAX_CELLS:,} cells, but at least one pipeline if there is one, and only the first {MAX_ENVIRONMENTS:,} "
        "environments.",
        "next_after": "Send this value as `after` to get the next pipelines. Null if there are no further pipelines.",
    }
