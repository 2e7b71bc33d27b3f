"""The people who decide on an approval: what each of them decided, and who can still decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html

from apps.console.frame import relative_time, site, state_pill, with_note
from apps.console.frame.columns import act_url, base_url_of, row_url
from apps.console.frame.console_user import console_user_of
from apps.console.pages.approvals.deciding import REMIND
from apps.notifications.services.wording.content import join_names
from apps.releases.models import Approval, ApprovalDecision
from apps.releases.services import approvals, reviewers
from apps.releases.services.reviewers import count_people
from apps.tenancy.models import User
from apps.tenancy.permissions import GRANTS
from apps.tenancy.permissions import Permission as P
from byteor.engine.counted import count_of
from byteor.engine.machines import ApprovalStatus
from byteor_cloud.database.together import Plan

CAN_APPROVE = "can approve this request"
_SHOWN = 20  # the maximum number of decisions that the page lists
_NAMED = 10  # the maximum number of people who have not decided that the page names


@dataclass(frozen=True, slots=True)
class Reviewing:
    """The first 20 decisions on an approval, and who can still decide.

    ``people`` are the ids and names of the reviewers; empty if everybody with the permission may decide. ``able`` are
    the ids of all people who can still approve. ``names`` are the names of the first 10 of them whom the viewer may
    see, and ``visible`` is the number of them whom the viewer may see. These three are empty or 0 if the approval is
    not open, or if nobody can approve it because its requester is unknown. ``can`` is what these people can
    do, which depends on the replay gate.
    """

    row: Approval
    decisions: list[ApprovalDecision]
    is_open: bool
    people: Mapping[UUID, str]
    able: frozenset[UUID] = frozenset()
    names: Sequence[str] = ()
    visible: int = 0
    can: str = CAN_APPROVE

    @property
    def consents(self) -> list[ApprovalDecision]:
        """The consents that count: those of the approval's reviewers, or all consents if it has no reviewers."""
        return [each for each in self.decisions if each.decision == "approve" and self.counts(each)]

    @property
    def given(self) -> int:
        """The number of consents that count."""
        return len(self.consents)

    @property
    def missing(self) -> int:
        """The number of approvals that are still needed."""
        return max(0, self.row.required_approvals - self.given)

    def counts(self, decision: ApprovalDecision) -> bool:
        """Return whether a decision is by somebody who is a reviewer now, or the approval has no reviewers."""
        return not self.row.reviewers or str(decision.user_id) in self.row.reviewers

    def who_can(self) -> str:
        """Return a sentence about who can approve, or why nobody can; "" if the approval is not open."""
        if not self.is_open:
            return ""
        if _is_requester_unknown(self.row):
            return approvals.REQUESTER_UNKNOWN
        if not self.able:
            return "Nobody can approve this request now."
        who = join_names(self.names, self.visible) if self.names else "Other people who may operate the environment"
        return f"{who} {self.can}."


def _is_requester_unknown(row: Approval) -> bool:
    return row.requester_id is None and not row.allow_self_approval


def plan_reviewing(request: HttpRequest, row: Approval) -> Plan[Reviewing]:
    """Return the ``Plan`` for who decided and who can still decide."""
    is_open = row.status == ApprovalStatus.PENDING and not approvals.is_overdue(row)
    needs_able = is_open and not _is_requester_unknown(row)
    decisions, named, memberships = yield [
        row.decisions.order_by("id")[:_SHOWN],
        _people(request, row, needs_able=needs_able).order_by("email", "pk").values_list("pk", "name", "email"),
        reviewers.memberships_of(row) if needs_able else User.objects.none(),
    ]
    names = {user_id: name or email for user_id, name, email in named}
    people = names if row.reviewers else {}
    if not needs_able:
        return Reviewing(row, decisions, is_open, people)
    able = frozenset(reviewers.deciders_of(row, memberships, [each.user_id for each in decisions]))
    visible = [name for user_id, name in names.items() if user_id in able]
    return Reviewing(row, decisions, is_open, people, able, visible[:_NAMED], len(visible))


def _people(request: HttpRequest, row: Approval, *, needs_able: bool) -> QuerySet[User]:
    """Return the reviewers.

    Without reviewers, returns the people who may be able to decide and whom the viewer may see, but only if
    ``needs_able``.
    """
    if row.reviewers:  # everybody who may see the approval may see the names of its reviewers
        return User.objects.filter(pk__in=row.reviewers)
    if not needs_able:
        return User.objects.none()
    deciding = [role for role, granted in GRANTS.items() if P.OPERATE_ENVIRONMENT in granted]
    candidates = User.objects.filter(pk__in=reviewers.memberships_of(row).filter(role__in=deciding).values("user"))
    found: QuerySet[User] = site.get_model_admin(User).narrow(candidates, console_user_of(request))
    return found


# -- the panel with the state of each person -----------------------------------------------------------------------


def reviewers_panel(found: Reviewing, *, with_names: bool) -> dict[str, Any]:
    """Return the panel with the decisions that were read and, if the approval has reviewers, who has not decided.

    ``with_names`` also names the people who can decide if the approval has no reviewers.
    """
    rows = [(_person(found, each), _decision(each)) for each in found.decisions]
    lead = ""
    if found.is_open and found.missing:
        lead = f"{_needed(found)}."
    if found.row.reviewers:
        rows += _undecided(found)
    elif with_names and (who := found.who_can()):
        lead = f"{lead} {who}"
    return {
        "id": "reviewers",
        "title": "Reviewers" if found.row.reviewers else "Decisions",
        "lead": lead,
        "columns": ("Who", "Decision"),
        "rows": rows,
        "empty": "Nobody has decided yet." if found.is_open else "Nobody decided.",
    }


def _needed(found: Reviewing) -> str:
    more = count_of(found.missing, "more approval" if found.given else "approval")
    return f"{more} {'is' if found.missing == 1 else 'are'} needed"


def _person(found: Reviewing, each: ApprovalDecision) -> str:
    note = "" if found.counts(each) else "not a reviewer, so this decision does not count"
    comment = format_html("<q>{}</q>", each.comment) if each.comment else ""
    return with_note(with_note(each.decided_by, comment), note)


def _decision(each: ApprovalDecision) -> str:
    word = "approved" if each.decision == "approve" else "denied"
    return with_note(state_pill(word), relative_time(each.created_at))


def _undecided(found: Reviewing) -> list[tuple[str, str]]:
    """Return a row for each of the first 10 reviewers who have not decided, and a row with the number of the others."""
    decided = {each.user_id for each in found.decisions}
    left = [each for each in found.people if each not in decided]
    left.sort(key=lambda each: found.is_open and each not in found.able)  # people who can still approve come first
    rows = [(found.people[each], _why_undecided(found, each)) for each in left[:_NAMED]]
    if more := len(left) - len(rows):
        rows.append((f"{more:,} more", "not decided yet" if found.is_open else "did not decide"))
    return rows


def _why_undecided(found: Reviewing, user_id: UUID) -> str:
    if not found.is_open:
        return "did not decide"
    if not found.row.allow_self_approval and user_id == found.row.requester_id:
        return "counts as the requester, so cannot approve"
    is_able = user_id in found.able or _is_requester_unknown(found.row)  # with an unknown requester, ``able`` is empty
    return "not decided yet" if is_able else "can no longer see this environment"


def too_few(found: Reviewing) -> list[tuple[str, str, list[str]]]:
    """Return a warning if fewer people can approve than are needed, unless ``_is_requester_unknown``."""
    if not found.is_open or len(found.able) >= found.missing or _is_requester_unknown(found.row):
        return []
    able = f"only {count_people(len(found.able))}" if found.able else "nobody"
    text = f"{_needed(found)}, but {able} can approve."
    has_page = found.row.reviewers and found.row.replay_id is None  # a replay's reviewers cannot be changed
    remedy = "An org_admin can change the reviewers on the page of the deployment."
    return [("warn", "Too few people can approve", [text, *([remedy] if has_page else [])])]


# -- what the requester can do ---------------------------------------------------------------------------------------


def ask_others(request: HttpRequest, found: Reviewing) -> dict[str, Any] | None:
    """Return who can approve, the page's URL and how to send a reminder, for the requester; None for other people.

    Also returns None if self-approval is allowed and the requester has not decided, or if the approval is not open.
    """
    row = found.row
    can_approve = row.allow_self_approval and not any(each.user_id == request.user.pk for each in found.decisions)
    if not found.is_open or row.requester_id != request.user.pk or can_approve:
        return None
    shown: dict[str, Any] = {"who": found.who_can(), "url": f"{base_url_of(request)}{row_url(row)}"}
    if not found.able or REMIND.may is None or not REMIND.may(row, console_user_of(request)):
        return shown
    if row.reminded_at is not None:
        shown["reminded"] = relative_time(row.reminded_at)
        again = row.reminded_at + approvals.REMIND_AGAIN_AFTER
        if again > timezone.now():
            return {**shown, "again": relative_time(again)}
    return {**shown, "remind": act_url(row, REMIND.name)}
