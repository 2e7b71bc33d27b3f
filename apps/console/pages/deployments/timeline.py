"""The events on a deployment's timeline as sentences with links."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.html import format_html, format_html_join

from apps.console.frame.columns import page_url, row_link, text_link
from apps.console.pages.deployments.phrases import FAILED_HOW, HOLDS, agent_count, describe_detail, offers
from apps.releases.models import Approval, Deployment, Regression, TimelineEntry
from apps.releases.services.reviewers import count_people
from byteor.engine.canonical import parse_time
from byteor.engine.counted import count_of
from byteor.engine.explain.wording import because

_LONGEST = 400  # characters of a text by people or agents
_BY_APPROVAL = frozenset({"pending_approval", "approved"})


@dataclass(frozen=True, slots=True)
class _Entry:
    """Who caused an event, the event's detail, and the deployment with its config bundle and version."""

    actor: str
    detail: Mapping[str, Any]
    deployment: Deployment

    @property
    def version(self) -> str:
        return str(self.deployment.config_bundle.version)

    @property
    def why(self) -> str:
        """The end of a sentence: a colon and the reason, if there is one, and a full stop."""
        return f"{because(self.text('reason'))}."

    @property
    def is_by_worker(self) -> bool:
        return self.actor.startswith("system:")

    def text(self, name: str) -> str:
        """Return a text of the detail, shortened; "" if the detail does not have it."""
        text = str(self.detail.get(name) or "")
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def describe_entry(entry: TimelineEntry, deployment: Deployment) -> str:
    """Return what happened in one or more sentences, as HTML or plain text.

    ``deployment`` and the deployment that it restores must have their config bundles and versions loaded.
    """
    shown = _Entry(entry.actor, entry.detail, deployment)
    describe = SENTENCES.get(entry.event)
    # An entry of a newer or much older version of this product may have an unknown event.
    return describe(shown) if describe is not None else f"{entry.event.replace('_', ' ').capitalize()}."


def _created(entry: _Entry) -> str:
    targets = entry.detail.get("targets") or [None, entry.deployment.target_count]
    more = [
        (f" Break glass{because(entry.text('break_glass'))}.", "break_glass"),
        (f" The freeze window is overridden{because(entry.text('override_freeze'))}.", "override_freeze"),
        (f" The replay gate is overridden{because(entry.text('override_replay_gate'))}.", "override_replay_gate"),
        (_starts(entry), "start_at"),
        (f" Only {count_of(len(entry.detail.get('reviewers') or ()), 'reviewer')} can decide.", "reviewers"),
        (_link(Regression, entry, "regression", " The deployment is tested by {}.", "a regression"), "regression"),
        (_link(Approval, entry, "approval", " The deployment uses {}.", "an earlier approval"), "approval"),
    ]
    link = row_link(entry.deployment.config_bundle, entry.version)
    said = format_html("{} requested {} for {}.", entry.actor, link, agent_count(targets[-1]))
    return format_html_join("", "{}", [(said,), *((text,) for text, name in more if entry.detail.get(name))])


def _starts(entry: _Entry) -> str:
    at = entry.detail.get("start_at")
    return f" The deployment starts at {parse_time(at):%Y-%m-%d %H:%M:%S} UTC at the earliest." if at else ""


def _link(model: Any, entry: _Entry, name: str, sentence: str, text: str) -> str:
    """Return the sentence with a link to the row whose id the detail has; "" if the detail has none."""
    pk = entry.detail.get(name)
    return format_html(sentence, text_link(page_url(model, "change", pk), text)) if pk else ""


def _decided(entry: _Entry, verb: str) -> str:
    approval_id, what = entry.deployment.approval_id, "the approval"
    linked = what if approval_id is None else text_link(page_url(Approval, "change", approval_id), what)
    return format_html("{} {} {}.", entry.actor, verb, linked)


def _wave_began(entry: _Entry) -> str:
    count = entry.detail.get("agents") or 0
    offered = f": {offers(count, entry.version)}" if count else ""
    return f"Wave {entry.detail['wave']} began{offered}."


def _failed(entry: _Entry) -> str:
    if entry.text("detail"):
        return f"The deployment failed{because(entry.text('detail'))}."
    if entry.detail.get("reason"):
        return f"The deployment failed{because(entry.text('reason').replace('_', ' '))}."
    before = (entry.detail.get("status") or [""])[0]
    by_approval = ": its approval expired or was withdrawn" if before in _BY_APPROVAL else ""
    return f"The deployment failed{by_approval}."


def _retried(entry: _Entry) -> str:
    count = entry.detail.get("agents") or 0
    if not count:
        return f"Continued by {entry.actor}{entry.why}"
    again = offers(count, entry.version, "failed ")
    return f"Retried by {entry.actor}{because(entry.text('reason'))}. {again} again."


def _rolled_back(entry: _Entry) -> str:
    restores, known = entry.detail.get("restores"), entry.deployment.restores
    name = "an earlier deployment"
    if known is not None and str(known.pk) == restores:
        name = f"v{known.config_bundle.version.number} (bundle {known.config_bundle})"
    began = "An automatic rollback began" if entry.is_by_worker else f"Rolled back by {entry.actor}"
    proofs = len(entry.detail.get("proofs") or ())
    more = f" {count_of(proofs, 'replay')} proved the rollback." if proofs else ""
    more += " The proof was skipped." if entry.detail.get("proceed") else ""
    link = text_link(page_url(Deployment, "change", restores), name) if restores else name
    return format_html("{}{} The rollback restores {}.{}", began, entry.why, link, more)


def _held(entry: _Entry) -> str:
    waits = f"Wave {entry.detail['wave']} waits"
    report = f" {entry.text('report')}".rstrip()
    if not entry.detail.get("approval"):
        return f"{waits} {HOLDS[entry.detail['kind']]}.{report}"
    return format_html("{}{}{}", waits, _link(Approval, entry, "approval", " for {}.", "approval"), report)


def _wave_decided(sentence: str) -> Callable[[_Entry], str]:
    return lambda entry: sentence.format(wave=entry.detail["wave"], actor=entry.actor)


def _reviewers_changed(entry: _Entry) -> str:
    before, after = (count_people(len(each)) if each else "everybody" for each in entry.detail["reviewers"])
    return f"{entry.actor} changed who may decide, from {before} to {after}{entry.why}"


def _agents_failed(entry: _Entry) -> str:
    causes = []
    for each in entry.detail["causes"]:
        detail = describe_detail(each["reason"], each["detail"])
        causes.append(f"{agent_count(each['count'])} ({detail}; {FAILED_HOW[each['reason']]})")
    where = f" of wave {entry.detail['wave']}" if "wave" in entry.detail else ""
    return f"{agent_count(entry.detail['failed'])}{where} failed: {', '.join(causes)}."


# A function for each event that a service adds to a timeline. Plain text is escaped by the templates.
# Not only the last person who approves can complete an approval, but also a change of the reviewers.
SENTENCES: Mapping[str, Callable[[_Entry], str]] = {
    "create": _created,
    "approve": lambda entry: _decided(entry, "completed"),
    "deny": lambda entry: _decided(entry, "denied"),
    "differences_accepted": lambda entry: (
        f"{entry.actor} accepted {count_of(entry.detail['accepted'], 'group')} of differences{entry.why}"
    ),
    "gate_blocked": lambda entry: f"The replay gate blocks the deployment{entry.why}",
    "change_reviewers": _reviewers_changed,
    "build": lambda entry: "The build of the deploy bundle started.",
    "offer": lambda entry: f"The bundle was built, and the first agents are offered {entry.version}.",
    "wave_started": _wave_began,
    "hold": _held,
    "next_wave": lambda entry: f"Wave {entry.detail['wave']} was started by {entry.actor}{entry.why}",
    "wave_approved": _wave_decided("Wave {wave} was approved. {actor} completed the approval."),
    "wave_denied": _wave_decided("{actor} denied wave {wave}."),
    "wave_expired": _wave_decided("The request to approve wave {wave} expired."),
    "wave_revoked": _wave_decided("The approval of wave {wave} was revoked."),
    "agents_failed": _agents_failed,
    "pause": lambda entry: f"Paused by {entry.actor}{entry.why}",
    "resume": lambda entry: f"Resumed by {entry.actor}{entry.why}",
    "abort": lambda entry: f"Aborted by {entry.actor}{entry.why}",
    "retry": _retried,
    "activate": lambda entry: f"All waves have finished, and {entry.version} became current.",
    "fail": _failed,
    "roll_back": _rolled_back,
    "restore": lambda entry: "The rollback has finished.",
    "break_glass_approved": lambda entry: f"{entry.actor} completed the approval after break-glass.",
    "break_glass_denied": lambda entry: f"{entry.actor} denied the approval after break-glass.",
    "break_glass_expired": lambda entry: "The deployment was not approved in time after break-glass.",
    "break_glass_revoked": lambda entry: "The request for approval after break-glass was withdrawn.",
}
