"""Routes below ``…/environments/{env_id}``, and the agents' upload and capture routes below ``/api/v1``."""

from apps.artifacts.api.views import (
    artifacts,
    bisects,
    captures,
    fixtures,
    packets,
    regressions,
    replays,
    requested_captures,
    rollbacks,
    uploads,
)
from byteor_cloud.api.routing import route

environment = [
    route("agents/<uuid:id>/capture", requested_captures.CaptureRequestViewSet, post="capture"),
    route("agents/<uuid:id>/captures", requested_captures.RequestedCaptureViewSet, get="list"),
    route("agents/<uuid:id>/captures/<uuid:capture_id>", requested_captures.RequestedCaptureViewSet, get="retrieve"),
    route("approvals/<uuid:id>/packet", packets.PacketViewSet, get="packet"),
    route("artifacts", artifacts.ArtifactViewSet, get="list"),
    route("artifacts/<uuid:id>", artifacts.ArtifactViewSet, get="retrieve"),
    route("artifacts/<uuid:id>/content", artifacts.ArtifactViewSet, get="content"),
    route("artifacts/<uuid:id>/replay", artifacts.ArtifactViewSet, post="replay"),
    route("artifacts/<uuid:id>/files", captures.CaptureViewSet, get="files"),
    route("artifacts/<uuid:id>/journal/<str:lane>", captures.CaptureViewSet, get="journal"),
    route("artifacts/<uuid:id>/bisect", artifacts.ArtifactViewSet, post="bisect"),
    route("bisects", bisects.BisectViewSet, get="list"),
    route("bisects/<uuid:id>", bisects.BisectViewSet, get="retrieve"),
    route("deployments/<uuid:id>/rollback", rollbacks.RollbackViewSet, post="rollback"),
    route("fixtures", fixtures.FixtureViewSet, get="list", post="create"),
    route("fixtures/<uuid:id>", fixtures.FixtureViewSet, get="retrieve", put="update", delete="destroy"),
    route("regressions", regressions.RegressionViewSet, get="list", post="create"),
    route("regressions/<uuid:id>", regressions.RegressionViewSet, get="retrieve"),
    route("regressions/<uuid:id>/cancel", regressions.RegressionViewSet, post="cancel_regression"),
    route("regressions/<uuid:id>/acceptances", regressions.RegressionViewSet, post="accept"),
    route("replays", replays.ReplayViewSet, get="list"),
    route("replays/<uuid:id>", replays.ReplayViewSet, get="retrieve"),
    route("replays/<uuid:id>/cancel", replays.ReplayViewSet, post="cancel"),
    route("replays/<uuid:id>/compare", replays.ReplayViewSet, get="compare"),
    route("replays/<uuid:id>/trace", replays.ReplayViewSet, get="trace"),
]
agent = [
    route("agents/<uuid:id>/artifacts", uploads.UploadViewSet, post="create"),
    route("agents/<uuid:id>/capture", requested_captures.PendingCaptureViewSet, get="retrieve"),
]
