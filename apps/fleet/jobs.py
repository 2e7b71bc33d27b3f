"""The jobs of this app, and the jobs that this app enqueues and ``apps.releases`` runs."""

from __future__ import annotations

from byteor_cloud.worker.jobs import Job, JobLane, Periodic


class WelcomeAgent(Job, name="releases.welcome", lane=JobLane.RELEASES):
    """Offer a new, updated or undrained agent the deployment that is current for the agent."""

    agent_id: str


class WelcomeAgents(Job, name="releases.welcome_several", lane=JobLane.RELEASES):
    """Offer new or relabeled agents the deployments that are current for them. Commas separate the agents' ids."""

    agent_ids: str


class AgentLeft(Job, name="releases.agent_left", lane=JobLane.RELEASES):
    """Enqueue a step of each rollout or rollback that may be waiting for a decommissioned or drained agent."""

    agent_id: str


DELETE_OLD_CREDENTIALS = Periodic("fleet.forget_credentials", every_s=3600, at_s=13 * 60, lane=JobLane.CLEANING)
DELETE_OLD_HISTORY = Periodic("fleet.forget_history", every_s=3600, at_s=43 * 60, lane=JobLane.CLEANING)
SETTLE_FACTS = Periodic("fleet.settle", every_s=5, lane=JobLane.CLEANING)
WRITE_SERIES = Periodic("fleet.write_series", every_s=900, at_s=60, lane=JobLane.CLEANING)
