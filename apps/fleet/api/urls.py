"""Routes below …/environments/{env_id}, and routes for agents below /api/v1."""

from apps.fleet.api.views import enrollment_tokens, own_agent, series
from byteor_cloud.api.routing import route

environment = [
    route("enrollment-tokens", enrollment_tokens.EnrollmentTokenViewSet, get="list", post="create"),
    route("enrollment-tokens/<uuid:id>", enrollment_tokens.EnrollmentTokenViewSet, delete="destroy"),
    route("agents/<uuid:id>/series", series.AgentSeriesViewSet, get="retrieve"),
    route("series", series.EnvironmentSeriesViewSet, get="retrieve"),
]
agent = [
    route("agents/<uuid:id>", own_agent.OwnAgentViewSet, get="retrieve"),
    route("agents/<uuid:id>/heartbeat", own_agent.HeartbeatViewSet, post="send"),
    route("agents/<uuid:id>/rotate-key", own_agent.OwnKeyViewSet, post="rotate_own_key"),
    route("agents/<uuid:id>/signing-key", own_agent.SigningKeyViewSet, get="retrieve"),
]
