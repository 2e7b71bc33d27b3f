"""Routes below …/environments/{env_id}, and the routes for agents below /api/v1."""

from apps.fleet.api import views as v
from byteor_cloud.api.routing import route

environment = [
    route("enrollment-tokens", v.EnrollmentTokenViewSet, get="list", post="create"),
    route("enrollment-tokens/<uuid:id>", v.EnrollmentTokenViewSet, delete="destroy"),
    route("agents", v.AgentViewSet, get="list", post="create"),
    route("agents/<uuid:id>", v.AgentViewSet, get="retrieve", patch="update", delete="destroy"),
    route("agents/<uuid:id>/rotate-key", v.AgentViewSet, post="rotate_key"),
    route("agents/<uuid:id>/drain", v.AgentViewSet, post="drain"),
    route("agents/<uuid:id>/undrain", v.AgentViewSet, post="undrain"),
]
agent = [
    route("agents/<uuid:id>", v.OwnAgentViewSet, get="retrieve"),
    route("agents/<uuid:id>/heartbeat", v.HeartbeatViewSet, post="send"),
    route("agents/<uuid:id>/rotate-key", v.OwnKeyViewSet, post="rotate_own_key"),
    route("agents/<uuid:id>/signing-key", v.SigningKeyViewSet, get="retrieve"),
]
