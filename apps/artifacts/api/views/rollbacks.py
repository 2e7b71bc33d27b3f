"""The view that rolls back deployments."""

from __future__ import annotations

from apps.artifacts.api import commands as c
from apps.releases.api.views.deployments import DeploymentViewSet


class RollbackViewSet(DeploymentViewSet):
    """Rollbacks of deployments. They are in this app because a replay may have to prove them."""

    commands = (c.rollback,)
