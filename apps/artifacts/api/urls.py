"""Routes below …/environments/{env_id}, and the route for agents below /api/v1."""

from apps.artifacts.api import views as v
from byteor_cloud.api.routing import route

environment = [
    route("artifacts", v.ArtifactViewSet, get="list"),
    route("artifacts/<uuid:id>", v.ArtifactViewSet, get="retrieve"),
    route("artifacts/<uuid:id>/content", v.ArtifactViewSet, get="content"),
    route("artifacts/<uuid:id>/replay", v.ArtifactViewSet, post="replay"),
    route("artifacts/<uuid:id>/files", v.CaptureViewSet, get="files"),
    route("artifacts/<uuid:id>/journal/<str:lane>", v.CaptureViewSet, get="journal"),
    route("artifacts/<uuid:id>/bisect", v.ArtifactViewSet, post="bisect"),
    route("bisects", v.BisectViewSet, get="list"),
    route("bisects/<uuid:id>", v.BisectViewSet, get="retrieve"),
    route("replays", v.ReplayViewSet, get="list"),
    route("replays/<uuid:id>", v.ReplayViewSet, get="retrieve"),
    route("replays/<uuid:id>/cancel", v.ReplayViewSet, post="cancel"),
    route("replays/<uuid:id>/compare", v.ReplayViewSet, get="compare"),
    route("replays/<uuid:id>/trace", v.ReplayViewSet, get="trace"),
]
agent = [route("agents/<uuid:id>/artifacts", v.UploadViewSet, post="create")]
