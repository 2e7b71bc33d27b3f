"""Routes below …/environments/{env_id}, and the routes for agents below /api/v1."""

from apps.releases.api import views as v
from apps.releases.api.explain import ExplanationViewSet
from apps.releases.api.history import AgentSummaryViewSet, FleetStateViewSet, HistoryViewSet
from apps.releases.api.labels import LabelViewSet
from byteor_cloud.api.routing import route

environment = [
    route("config-bundles", v.ConfigBundleViewSet, get="list", post="create"),
    route("config-bundles/<uuid:id>", v.ConfigBundleViewSet, get="retrieve"),
    route("config-bundles/<uuid:id>/clear", v.ConfigBundleViewSet, post="clear"),
    route("deployments", v.DeploymentViewSet, get="list", post="create"),
    route("deployments/<uuid:id>", v.DeploymentViewSet, get="retrieve"),
    route("deployments/<uuid:id>/rollback", v.DeploymentViewSet, post="rollback"),
    route("deployments/<uuid:id>/pause", v.DeploymentViewSet, post="pause"),
    route("deployments/<uuid:id>/resume", v.DeploymentViewSet, post="resume"),
    route("deployments/<uuid:id>/retry", v.DeploymentViewSet, post="retry"),
    route("deployments/<uuid:id>/abort", v.DeploymentViewSet, post="abort"),
    route("deployments/<uuid:id>/evidence", v.DeploymentViewSet, get="evidence"),
    route("deployments/<uuid:id>/agents", v.DeploymentAgentViewSet, get="list"),
    route("deployments/<uuid:id>/timeline", v.TimelineViewSet, get="list"),
    route("approvals", v.ApprovalViewSet, get="list", post="create"),
    route("approvals/<uuid:id>", v.ApprovalViewSet, get="retrieve"),
    route("approvals/<uuid:id>/revoke", v.ApprovalViewSet, post="revoke"),
    route("agents/labels", LabelViewSet, post="change"),
    route("agents/<uuid:id>/explain", ExplanationViewSet, get="retrieve"),
    route("agents/<uuid:id>/history", HistoryViewSet, get="list"),
    route("agents/summary", AgentSummaryViewSet, get="retrieve"),
    route("fleet-state", FleetStateViewSet, get="list"),
]
agent = [
    route("agents/<uuid:id>/deployment", v.AgentDeploymentViewSet, get="retrieve", post="report"),
    route("agents/<uuid:id>/deployment/bundle", v.AgentDeploymentViewSet, get="bundle"),
]
