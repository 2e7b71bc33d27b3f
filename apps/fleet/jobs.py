"""The kinds of jobs of this app, and those that it enqueues for ``apps.releases``, whose ``tasks.py`` runs them."""

from __future__ import annotations

from byteor_cloud.jobs import Job, Lane, Periodic


class WelcomeAgent(Job, name="releases.welcome", lane=Lane.RELEASES):
    """Offer a new or relabelled agent the deployment that runs in its environment."""

    agent_id: str


class AgentLeft(Job, name="releases.agent_left", lane=Lane.RELEASES):
    """Step the rollouts that may wait for an agent that left the fleet."""

    agent_id: str


FORGET_CREDENTIALS = Periodic("fleet.forget_credentials", every_s=3600, at_s=13 * 60, lane=Lane.CLEANING)
