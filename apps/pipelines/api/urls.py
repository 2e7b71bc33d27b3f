"""Routes below /api/v1 and below …/environments/{env_id}."""

from apps.pipelines.api import views as v
from byteor_cloud.api.routing import route

urlpatterns = [route("plan-schema", v.PlanSchemaViewSet, get="retrieve")]
environment = [
    route("drafts", v.DraftViewSet, get="list", post="create"),
    route("drafts/<uuid:id>", v.DraftViewSet, get="retrieve", put="update", delete="destroy"),
    route("drafts/<uuid:id>/preview", v.DraftViewSet, post="preview"),
    route("drafts/<uuid:id>/version", v.DraftViewSet, post="version"),
    route("drafts/<uuid:id>/diff", v.DraftViewSet, get="diff"),
    route("versions", v.VersionViewSet, get="list", post="create"),
    route("versions/<uuid:id>", v.VersionViewSet, get="retrieve"),
    route("versions/<uuid:id>/spec.kv", v.VersionViewSet, get="spec_kv"),
    route("versions/<uuid:id>/diff", v.VersionViewSet, get="diff"),
    route("versions/<uuid:id>/graph.svg", v.VersionViewSet, get="graph"),
]
