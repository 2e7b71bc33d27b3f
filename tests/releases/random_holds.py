"""The random requests about holds, reviewers and retries of one agent, and the checks of what deployments wait for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from apps.releases.models import Approval
from apps.tenancy.models import Membership
from apps.tenancy.permissions import Role
from byteor.engine.canonical import format_time
from tests.releases import model_records as m
from tests.releases.random_story import any_index, random_action
from tests.releases.random_worker import Worker

PEOPLE = ["operator", "reviewer", "admin", "viewer"]
reviewer_lists = st.sampled_from(
    [("reviewer",), ("viewer",), ("reviewer", "viewer"), ("admin", "reviewer"), ("admin", "operator", "viewer")]
)


class Holds(Worker):
    """The holds and the reviewers of a random story."""

    def _held(self) -> list[m.Deployment]:
        return [d for d in self.model.deployments if d.status == "deploying" and any(d.strategy.holds)]

    def _path(self, deployment: m.Deployment, action: str = "") -> str:
        return f"/deployments/{self.ids[deployment.number]}{action}"

    def _user_ids(self, people: tuple[str, ...]) -> list[str]:
        return [str(self.scene.people[person].user.pk) for person in people]

    @random_action(
        8, when=lambda self: self._held(),  # type: ignore[attr-defined]  # the story has this method
        which=any_index,
        what=st.sampled_from(
            ["next_wave"] * 2 + ["approve"] * 3 + ["deny", "revoke", "pause", "retry", "look", "expire"]
        ),
        person=st.sampled_from(PEOPLE),
        digest=st.sampled_from(["right", "right", "right", "right", "old", "wrong", "missing"]),
    )  # fmt: skip
    def steer(self, which: int, what: str, person: str, digest: str) -> None:
        """Act on a deployment that has holds, preferably on one that waits at a hold."""
        held = self._held()
        standing = [d for d in held if d.hold]
        deployment = (standing or held)[which % len(standing or held)]
        approvals = deployment.wave_approvals
        if what == "next_wave" or (what == "approve" and not approvals):
            self._next_wave(deployment)
        elif what in {"approve", "deny"}:
            wave = approvals[-1][0] if approvals else 1
            self._decide_wave(deployment, wave, person, what, digest)
            if what == "approve" and digest == "right":
                self._decide_wave(deployment, wave, "reviewer", what, digest)
        elif what == "revoke" and approvals:
            number = which % len(approvals)
            pk = Approval.objects.filter(rollout=self.ids[deployment.number]).order_by("pk")[number].pk
            refusal = self.model.revoke_wave(deployment, approvals[number][1])
            self._check_response(self._post(f"/approvals/{pk}/revoke"), refusal)
        elif what == "pause":
            paused = deployment.paused is None
            response = self._post(self._path(deployment, "/pause" if paused else "/resume"))
            self._check_response(response, self.model.pause(deployment, paused=paused))
        elif what == "retry":
            self.retry_one(deployment.number, which)
        elif what == "expire":
            self.wait(3600, swept=True)
        elif what == "look" and not self._waiting():
            self._check_wait(deployment)

    def _next_wave(self, deployment: m.Deployment) -> None:
        response = self._post(self._path(deployment, "/next-wave"))
        refusal = self.model.next_wave(deployment)
        self._check_response(response, refusal)
        if not refusal:
            self.let_start.setdefault(deployment.number, []).append((False, response.json()["wave"]))

    def _decide_wave(self, deployment: m.Deployment, wave: int, person: str, word: str, digest: str = "right") -> None:
        reports = Approval.objects.filter(rollout=self.ids[deployment.number], wave=wave).order_by("-pk")
        digests = [each.wave_report.digest for each in reports if each.wave_report is not None]
        if digest == "old":
            digests = [each for each in digests[1:] if each != digests[0]]
        known = digests[0] if digests and digest != "wrong" else "sha256:" + "0" * 64
        body = {
            "deployment_id": str(self.ids[deployment.number]), "wave": wave, "decision": word, "comment": "seen",
            **({} if digest == "missing" else {"digest": known}),
        }  # fmt: skip
        response = self._post("/approvals", body, by=person)
        self._check_response(
            response, self.model.decide_wave(deployment, wave, person, word, digest=digest), expected=201
        )
        if response.status_code == 201 and response.json()["status"] == "approved":
            self.let_start.setdefault(deployment.number, []).append((True, wave))

    @random_action(1, when=lambda self: self.ids, which=any_index, agent=any_index)
    def retry_one(self, which: int, agent: int) -> None:
        """Request the retry of one agent in a deployment, preferably of an agent that failed."""
        deployment = self.model.deployments[which % len(self.ids)]
        number = agent % len(self.agents)
        failed = [n for n, part in deployment.parts.items() if part.progress == "failed"]
        number = failed[agent % len(failed)] if failed else number
        body = {"reason": "because", "agents": [str(self.agents[number][0].pk)]}
        self._check_response(self._post(self._path(deployment, "/retry"), body), self.model.retry(deployment, number))

    @random_action(
        2, when=lambda self: self.ids,
        which=any_index, people=reviewer_lists | st.just(()), by=st.sampled_from(["admin"] * 3 + ["operator"]),
        leaves=st.sampled_from([False, False, True]),
    )  # fmt: skip
    def change_reviewers(self, which: int, people: tuple[str, ...], by: str, leaves: bool) -> None:
        """Change the reviewers of a deployment, or let the viewer leave the organization or come back."""
        if leaves:
            self._leave_or_return("viewer")
            return
        open_ones = [d for d in self.model.deployments if d.status in {"pending_approval", "deploying"}]
        found = open_ones or self.model.deployments
        self._change_reviewers(found[which % len(found)], people, by)

    def _change_reviewers(self, deployment: m.Deployment, people: tuple[str, ...], by: str) -> None:
        body = {"reviewers": self._user_ids(people)}
        response = self._post(self._path(deployment, "/reviewers"), body, by=by)
        refusal = "forbidden" if by != "admin" else self.model.change_reviewers(deployment, people)
        self._check_response(response, refusal)
        self._note_approved(deployment)

    def _note_approved(self, deployment: m.Deployment) -> None:
        """Note the wave of the newest approval if approved. New reviewers can make earlier consents sufficient."""
        for wave, approval in deployment.wave_approvals[-1:]:
            if approval.status == "approved":
                self.let_start.setdefault(deployment.number, []).append((True, wave))

    def _leave_or_return(self, person: str) -> None:
        memberships = Membership.objects.filter(user=self.scene.people[person].user)
        if person in self.model.gone:
            Membership.objects.create(
                user=self.scene.people[person].user, organization=self.scene.world.organization, role=Role.VIEWER
            )
        else:
            memberships.delete()
        self.model.gone ^= {person}

    # What deployments wait for.

    def _pass_hold(self, deployment: m.Deployment) -> None:
        """Start the wave that a manual hold delays. Approve the wave that an approval hold delays.

        In the second case, first remove the approval's reviewers, so that other people may approve.
        """
        hold = deployment.hold
        if hold is None:
            return
        if hold.approval is None:
            self._next_wave(deployment)
            return
        has_glass = deployment.approval is not None and deployment.approval.broken
        own = deployment.policy.self_approval and not has_glass
        able = [p for p in PEOPLE[:3] if own or p != deployment.requester]
        if hold.approval.reviewers:
            self._change_reviewers(deployment, (), "admin")
        for person in able:
            if hold.approval.status == "pending" and person not in hold.approval.approved_by:
                self._decide_wave(deployment, hold.wave, person, "approve")

    def _check_waits(self) -> None:
        """Check the blockers and explanations of the deployments in flight.

        Call this when no job or unfinished offer is left.
        """
        for deployment in self.model.deployments:
            if deployment.status in m.IN_FLIGHT:
                self._check_wait(deployment)

    def _check_wait(self, deployment: m.Deployment) -> None:
        body = self._get(self._path(deployment))
        codes = {each["code"] for each in body["blockers"]}
        hold = None if self.model.is_released(deployment) else deployment.hold
        assert ("wave_hold" in codes) is (hold is not None), body["blockers"]
        if hold is not None:
            shown = body["wave_hold"]
            kind = "manual" if hold.approval is None else "approval"
            assert (shown["wave"], shown["kind"], shown["approval_id"] is None) == (hold.wave, kind, kind == "manual")
            assert ("too_few_reviewers" in codes) is self.model.lacks_reviewers(deployment, hold.approval)
        if deployment.status == "approved":
            assert codes
            assert ("start_at" in codes) is self.model.is_scheduled(deployment)
        waiting = self.model.find_waiting(deployment)
        if deployment.status == "deploying" and waiting:
            self._check_explanation(deployment, hold, min(waiting))

    def _check_explanation(self, deployment: m.Deployment, hold: m.Hold | None, number: int) -> None:
        """Check that the explanation of an agent whose wave has not started names what the rollout waits for."""
        explained = self._get(f"/agents/{self.agents[number][0].pk}/explain")
        pk, label = str(self.ids[deployment.number]), self._label(deployment)
        because = {each["code"] for each in explained["because"] if each["deployment_id"] == pk}
        upcoming = {each["code"]: each for each in explained["next"] if label in each["detail"]}
        assert "waits_for_wave" in because
        is_paused = deployment.paused is not None
        assert ("waits_for_hold" in because) is (hold is not None), explained
        assert ("paused" in because) is is_paused
        assert ("resume" in upcoming) is is_paused
        assert ("hold_ends" in upcoming) is (hold is not None and not is_paused)
        if hold is not None and not is_paused:
            assert f"wave {hold.wave + 1} of" in upcoming["hold_ends"]["detail"]
        rests = deployment.wave_done is not None and hold is None and not is_paused
        assert ("wave_begins" in upcoming) is rests, explained
        if deployment.wave_done is not None and rests:
            ends = self.scene.start + timedelta(seconds=deployment.wave_done + deployment.strategy.pause_s)
            assert upcoming["wave_begins"]["at"][:19] == format_time(ends)[:19]
        has_unfinished = self.model.has_unfinished(deployment)
        assert hold is not None or is_paused or rests or has_unfinished, "names nothing"

    def _get(self, rest: str) -> dict[str, Any]:
        response = self.scene.people["operator"].api.get(self.scene.path(rest))
        assert response.status_code == 200, response.json()
        body: dict[str, Any] = response.json()
        return body

    def _label(self, deployment: m.Deployment) -> str:
        _, made = self.scene.bundles[deployment.bundle.number]
        return f"{deployment.bundle.pipeline}/{made.name}"
