"""The random actions of a fleet: agents enroll, leave, get other labels, and send heartbeats and reports."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from hypothesis import strategies as st

from apps.fleet.models import Agent, Heartbeat
from tests.releases import model_records as m
from tests.releases.random_story import Story, any_index, random_action
from tests.worlds import Api


class Fleet(Story):
    """The agents of a random story."""

    @random_action(
        2,
        what=st.sampled_from(["enroll", "enroll", "relabel", "relabel", "leave", "heartbeat", "heartbeat"]),
        number=any_index,
    )
    def change_of_fleet(self, what: str, number: int) -> None:
        site = "ab"[number % 2]
        if what == "enroll":
            if len(self.agents) < 6:
                self._enroll(site)
        elif what == "relabel":
            self._relabel(number, site)
        else:
            (self._leave if what == "leave" else self._send_heartbeat)(number)

    def _enroll(self, site: str) -> None:
        token = self.scene.world.enrollment_token(self.scene.here)
        body = {"name": f"agent {len(self.agents)}", "labels": {"site": site}}
        response = Api(token).post(self.scene.path("/agents"), body)
        assert response.status_code == 201, response.json()
        enrolled = response.json()
        self.agents.append((Agent.objects.get(pk=enrolled["agent_id"]), Api(enrolled["api_key"])))
        self.model.enroll(site)

    def _leave(self, number: int) -> None:
        known, agent, _ = self._agent(number)
        response = self.scene.world.operator.api.delete(self.scene.path(f"/agents/{agent.pk}"))
        assert response.status_code == (404 if known.left else 204)
        known.left = True

    def _relabel(self, number: int, site: str) -> None:
        known, agent, _ = self._agent(number)
        path = self.scene.path(f"/agents/{agent.pk}")
        response = self.scene.world.operator.api.patch(path, {"labels": {"site": site}})
        assert response.status_code == (404 if known.left else 200)
        known.site = known.site if known.left else site

    def _send_heartbeat(self, number: int) -> None:
        known, agent, api = self._agent(number)
        response = api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {"status": "healthy", "agent_version": "1"})
        if known.left:
            assert response.status_code == 401
            return
        # PostgreSQL, which stores the heartbeat's time, does not use the story's clock.
        Heartbeat.objects.filter(agent=agent).update(last_seen_at=timezone.now())
        known.heard = self.model.now
        desired = response.json()["desired"]
        if known.offer is None:
            assert desired is None
        else:
            assert (desired["deployment_id"], desired["action"], desired["bundle_hash"]) == (
                str(self.ids[known.offer.by]), known.offer.action, self._hash(known.offer.source),
            )  # fmt: skip

    def _post_report(self, agent: Agent, api: Api, by: int, source: int, status: str) -> Any:
        body = {"deployment_id": str(self.ids[by]), "status": status, "bundle_hash": self._hash(source)}
        return api.post(f"/api/v1/agents/{agent.pk}/deployment", body)

    def _report(self, number: int, by: int, source: int, status: str) -> None:
        known, agent, api = self._agent(number)
        response = self._post_report(agent, api, by, source, status)
        if known.left:
            assert response.status_code == 401
        else:
            self._check_response(response, None if self.model.report(known, by, source, status) else "late_report")

    @random_action(
        3, when=lambda self: self.seen,
        which=any_index, status=st.sampled_from(["downloading", "activating", "failed", "end", "end"]),
    )  # fmt: skip
    def report(self, which: int, status: str) -> None:
        """Report on an offer that an agent has not finished."""
        open_ones = [a for a in self.model.agents if a.offer and a.progress not in m.ENDS]
        if open_ones:
            self._report_on_offer(open_ones[which % len(open_ones)], status)

    def _report_on_offer(self, agent: m.Agent, status: str) -> None:
        if agent.offer is not None:
            end = "rolled_back" if agent.offer.action == "rollback" else "active"
            self._report(agent.number, agent.offer.by, agent.offer.source, end if status == "end" else status)

    @random_action(2, when=lambda self: self.seen, word=st.sampled_from(["end", "end", "activating", "failed"]))
    def report_all(self, word: str) -> None:
        for agent in self.model.agents:
            if word and agent.progress not in m.ENDS:
                self._report_on_offer(agent, word)

    @random_action(
        2, when=lambda self: self.seen,
        which=any_index, status=st.sampled_from(["downloading", "activating", "failed", "active", "rolled_back"]),
    )  # fmt: skip
    def report_late(self, which: int, status: str) -> None:
        """Report on a current or earlier offer, which may be finished or replaced.

        Sometimes an agent of another environment also reports on it.
        """
        self._report(*self.seen[which % len(self.seen)], status)

        if which % 8 == 0:
            self._report_from_other_environment(which)

    def _report_from_other_environment(self, which: int) -> None:
        """Let an agent of another environment report on an offer of this environment."""
        _, by, source = self.seen[which % len(self.seen)]
        self._check_response(self._post_report(*self.scene.stranger, by, source, "active"), "not_found")
