"""Serializers of config bundles, deployments, approvals and offers, in one module for each kind of resource."""

from apps.releases.api.serializers.approvals import (
    ApprovalSerializer,
    DecideSerializer,
    DecisionSerializer,
)
from apps.releases.api.serializers.bundles import (
    AdapterField,
    AdaptersSerializer,
    ConfigBundleSerializer,
    EnvVarsField,
    SnapshotSerializer,
)
from apps.releases.api.serializers.deployments import (
    DeploymentAgentSerializer,
    DeploymentSerializer,
    OptionalReasonSerializer,
    ProgressSerializer,
    ReasonSerializer,
    RetrySerializer,
    TimelineEntrySerializer,
    TuningSerializer,
    UnmetSettingSerializer,
)
from apps.releases.api.serializers.offers import (
    AgentTuningSerializer,
    DesiredAnswerSerializer,
    DesiredSerializer,
    ReportAnswerSerializer,
    ReportSerializer,
)

__all__ = [
    "AdapterField",
    "AdaptersSerializer",
    "AgentTuningSerializer",
    "ApprovalSerializer",
    "ConfigBundleSerializer",
    "DecideSerializer",
    "DecisionSerializer",
    "DeploymentAgentSerializer",
    "DeploymentSerializer",
    "DesiredAnswerSerializer",
    "DesiredSerializer",
    "EnvVarsField",
    "OptionalReasonSerializer",
    "ProgressSerializer",
    "ReasonSerializer",
    "ReportAnswerSerializer",
    "ReportSerializer",
    "RetrySerializer",
    "SnapshotSerializer",
    "TimelineEntrySerializer",
    "TuningSerializer",
    "UnmetSettingSerializer",
]
