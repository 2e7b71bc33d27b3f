"""Routes below a project and below …/environments/{env_id}, and the routes for agents below /api/v1."""

from apps.releases.api.views import (
    agents,
    approvals,
    bundles,
    deployments,
    explanations,
    held_offers,
    history,
    labels,
    matrix,
    offers,
)
from byteor_cloud.api.routing import route

project = [route("matrix", matrix.MatrixViewSet, get="retrieve")]
environment = [
    route("config-bundles", bundles.ConfigBundleViewSet, get="list", post="create"),
    route("config-bundles/<uuid:id>", bundles.ConfigBundleViewSet, get="retrieve"),
    route("config-bundles/<uuid:id>/clear", bundles.ConfigBundleViewSet, post="clear"),
    route("deployments", deployments.DeploymentViewSet, get="list", post="create"),
    route("deployments/<uuid:id>", deployments.DeploymentViewSet, get="retrieve"),
    route("deployments/<uuid:id>/pause", deployments.DeploymentViewSet, post="pause"),
    route("deployments/<uuid:id>/resume", deployments.DeploymentViewSet, post="resume"),
    route("deployments/<uuid:id>/retry", deployments.DeploymentViewSet, post="retry"),
    route("deployments/<uuid:id>/next-wave", deployments.DeploymentViewSet, post="next_wave"),
    route("deployments/<uuid:id>/reviewers", deployments.DeploymentViewSet, post="change_reviewers"),
    route("deployments/<uuid:id>/abort", deployments.DeploymentViewSet, post="abort"),
    route("deployments/<uuid:id>/evidence", deployments.DeploymentViewSet, get="evidence"),
    route("deployments/<uuid:id>/agents", deployments.DeploymentAgentViewSet, get="list"),
    route("deployments/<uuid:id>/timeline", deployments.TimelineViewSet, get="list"),
    route("approvals", approvals.ApprovalViewSet, get="list", post="create"),
    route("approvals/<uuid:id>", approvals.ApprovalViewSet, get="retrieve"),
    route("approvals/<uuid:id>/revoke", approvals.ApprovalViewSet, post="revoke"),
    route("approvals/<uuid:id>/remind", approvals.ApprovalViewSet, post="remind"),
    route("agents", agents.FoundAgentViewSet, get="list", post="create"),
    route("agents/<uuid:id>", agents.FoundAgentViewSet, get="retrieve", patch="update", delete="destroy"),
    route("agents/<uuid:id>/rotate-key", agents.FoundAgentViewSet, post="rotate_key"),
    route("agents/<uuid:id>/drain", agents.FoundAgentViewSet, post="drain"),
    route("agents/<uuid:id>/undrain", agents.FoundAgentViewSet, post="undrain"),
    route("agents/labels", labels.LabelViewSet, post="change"),
    route("agents/<uuid:id>/explain", explanations.ExplanationViewSet, get="retrieve"),
    route("agents/<uuid:id>/history", history.HistoryViewSet, get="list"),
    route("agents/summary", history.AgentSummaryViewSet, get="retrieve"),
    route("held-offers", held_offers.HeldOffersViewSet, get="retrieve"),
    route("held-offers/resume", held_offers.HeldOffersViewSet, post="resume_offers"),
    route("fleet-state", history.FleetStateViewSet, get="list"),
]
agent = [
    route("agents/<uuid:id>/deployment", offers.AgentDeploymentViewSet, get="retrieve", post="report"),
    route("agents/<uuid:id>/deployment/attestation", offers.AgentDeploymentViewSet, get="attestation"),
    route("agents/<uuid:id>/deployment/bundle", offers.AgentDeploymentViewSet, get="bundle"),
]
