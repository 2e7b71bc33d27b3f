"""The list "Needs you" of the overview: what waits for the person, most urgent first, each with one button.

The order: break-glass deployments by deadline, failed deployments that were not rolled back, environments with failed
agents; then what waits for the person, by deadline (held waves, which have none, follow); then everything else, newest
first, and at the end what has no known age.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from django.db.models import Model
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Artifact
from apps.console.frame import relative_time, state_pill, time_left
from apps.console.frame.columns import act_url, list_url, page_url, row_url, text_link
from apps.console.frame.console_user import ConsoleUser
from apps.console.frame.scope import with_scope
from apps.console.pages.agents.enrollment import CREATE_ENROLLMENT_TOKEN
from apps.console.pages.credentials.acts import CREATE_ORGANIZATION_KEY, CREATE_USER_TOKEN
from apps.console.pages.deployments.phrases import agent_count
from apps.console.pages.deployments.steering import START_NEXT_WAVE
from apps.console.pages.home.needs_query import MOST_OF_KIND, Found, Home, Kind
from apps.console.pages.job_titles import TITLES
from apps.console.pages.organizations.usage import SET_QUOTAS
from apps.fleet.models import Agent, EnrollmentToken, Heartbeat, Liveness
from apps.fleet.services.facts import Fleet
from apps.notifications.models import ChatWebhook
from apps.notifications.services.sweeps.credentials import EXPIRING_FOR
from apps.releases.models import Approval, Deployment, Regression
from apps.tenancy.models import (
    Environment,
    Organization,
    OrganizationKey,
    Quota,
    Tenant,
    User,
    UserToken,
    Webhook,
)
from apps.tenancy.permissions import Permission as P
from byteor.engine.counted import count_of
from byteor.engine.machines import DeploymentStatus

SHOWN: Final = 20
_DETAIL: Final = 160  # characters of an error that a line shows
_BREAK_GLASS, _FAILED, _AGENTS, _WAITING, _REST = range(5)


@dataclass(frozen=True, slots=True)
class Need:
    """A line of the list. ``rank`` and ``due`` or ``at`` decide its place.

    ``title`` is HTML, and ``reason`` is HTML or plain text. ``at`` is usually when the need began, or the time of
    the newest row if the line is about several rows. ``due`` is the deadline. ``kind`` is the noun with which lines
    that are not shown are counted, and ``all_url`` is the URL of the list that contains their rows.
    """

    key: str
    rank: int
    tone: str
    title: str
    where: str
    reason: str
    at: datetime | None
    due: datetime | None
    button: str
    url: str
    kind: str
    all_url: str

    @property
    def age(self) -> str:
        """The time ``at``, relative to now, as HTML; empty if unknown."""
        return relative_time(self.at) if self.at is not None else ""


@dataclass(frozen=True, slots=True)
class Needs:
    """The lines of the list, and a note with links about the needs that it does not show."""

    lines: Sequence[Need]
    more: str
    links: Sequence[tuple[str, str]]


def find_needs(home: Home, fleets: Mapping[Environment, Fleet], console_user: ConsoleUser, scope: Tenant) -> Needs:
    """Return the list for the person. ``fleets`` are the counts of agents of the environments in the scope."""
    found = [sentence(row) for kind, sentence in _SENTENCES.items() for row in home.rows[kind]]
    found += _jobs(home.rows[Kind.JOB])
    found += [need for row in home.rows[Kind.QUOTA] for need in _quotas(row, is_operator=console_user.is_superuser)]
    rolling = {UUID(row.about["environment"]) for row in home.rows[Kind.UNDER_WAY]}
    for environment, fleet in fleets.items():
        if P.OPERATE_ENVIRONMENT in console_user.permissions(environment):
            found += _of_fleet(environment, fleet, is_rolling=environment.pk in rolling)
    # A break-glass approval that the person can decide on may be found twice. The line with the button "Review" comes
    # later and replaces the other line.
    ranked = sorted({need.key: need for need in found}.values(), key=_place_of)
    is_cut = any(len(rows) > MOST_OF_KIND for kind, rows in home.rows.items() if kind is not Kind.UNDER_WAY)
    return _cut(ranked, scope, is_cut=is_cut)


def _place_of(need: Need) -> tuple[int, float, float, str]:
    """Return the sort key: the rank, and then the deadline or the age.

    Deadlines only decide the order of break-glass deployments and of what waits for the person.
    """
    due = float("inf") if need.due is None else need.due.timestamp()
    at = 0.0 if need.at is None else need.at.timestamp()
    if need.rank == _WAITING:
        return need.rank, due, at, need.key  # without deadlines, what waits longest comes first
    return need.rank, due if need.rank == _BREAK_GLASS else 0.0, -at, need.key


def _cut(ranked: Sequence[Need], scope: Tenant, *, is_cut: bool) -> Needs:
    others = Counter((need.kind, need.all_url) for need in ranked[SHOWN:])
    links = [(count_of(count, kind), with_scope(url, scope)) for (kind, url), count in others.items()]
    more = ""
    if others:
        more = f"and {'at least ' if is_cut else ''}{others.total():,} more:"
    return Needs(ranked[:SHOWN], more, links)


# -- sentences ----------------------------------------------------------------------------------------------------


def _where(about: Mapping[str, Any]) -> str:
    return f"{about['project']} / {about['place']}"


def _link(model: type[Model], key: Any, text: str) -> str:
    return text_link(page_url(model, "change", key), text)


def _shortened(text: str | None) -> str:
    text = " ".join((text or "").split())
    return text if len(text) <= _DETAIL else f"{text[:_DETAIL]}…"


def _subject(about: Mapping[str, Any]) -> str:
    """Return the subject of an approval, as in the list of approvals, or its id if its deployment was deleted."""
    if about["rollout"] is not None:
        return f"Wave {about['wave'] + 1} of {about['rollout']}/{about['bundle']}"
    if about["pipeline"] is not None:
        return f"{about['pipeline']} v{about['version']} to {about['place']}"
    return f"Execute replay in {about['place']}" if about["replay"] else f"approval {about['id']}"


def _with_warnings(sentence: str, about: Mapping[str, Any]) -> str:
    """Return the sentence about an approval, followed by its warnings as pills."""
    words = {
        "break glass": about["break_glass"], "freeze overridden": about["freeze"], "gate overridden": about["gate"],
    }  # fmt: skip
    pills = [state_pill(word) for word, applies in words.items() if applies]
    subject = _link(Approval, about["id"], _subject(about))
    return format_html(" ".join([sentence, *["{}"] * len(pills)]), subject, *pills)


def _is_ahead(moment: datetime | None) -> bool:
    return moment is not None and moment > timezone.now()


def _approval(found: Found) -> Need:
    about = found.about
    if about["break_glass"]:
        return _break_glass(found, "Review")
    expires_at = parse_datetime(about["expires_at"])
    # An approval in the list whose time has passed cannot expire now, because its deadline is paused.
    expires = format_html(" Expires: {}.", relative_time(expires_at)) if _is_ahead(expires_at) else ""
    return Need(
        key=f"approval-{about['id']}", rank=_WAITING, tone="waiting", where=_where(about), at=found.at, due=expires_at,
        title=_with_warnings("{} waits for your approval.", about),
        reason=format_html("Requested by {}.{}", about["requested_by"], expires),
        button="Review", url=page_url(Approval, "change", about["id"]),
        kind="approval", all_url=f"{list_url(Approval)}?for=me",
    )  # fmt: skip


def _break_glass(found: Found, button: str) -> Need:
    about = found.about
    due = parse_datetime(about["expires_at"])
    left = format_html("Time to approve it: {}. ", time_left(due)) if _is_ahead(due) else ""
    return Need(
        key=f"approval-{about['id']}", rank=_BREAK_GLASS, tone="bad", where=_where(about), at=found.at, due=due,
        title=_with_warnings("{} does not wait for its approval.", about),
        reason=format_html("{}Without an approval in time, it is rolled back, if possible.", left),
        button=button, url=page_url(Approval, "change", about["id"]),
        kind="approval", all_url=f"{list_url(Approval)}?status__exact=pending",
    )  # fmt: skip


def _rollout(found: Found, *, title: str, **given: Any) -> Need:
    """Return the line of a deployment. ``title`` has a place for the deployment's link."""
    about = found.about
    subject = _link(Deployment, about["id"], f"{about['pipeline']} v{about['version']} to {about['place']}")
    values: dict[str, Any] = {
        "reason": "", "url": page_url(Deployment, "change", about["id"]), "kind": "deployment",
        "all_url": list_url(Deployment), "due": None, **given,
    }  # fmt: skip
    key = f"deployment-{about['id']}"
    return Need(key=key, where=_where(about), at=found.at, title=format_html(title, subject), **values)


def _held_wave(found: Found) -> Need:
    # The waves between these two have no agents that can get an offer.
    finished, wave = found.about["wave"] + 1, int(found.about["held"]) + 1
    return _rollout(
        found, title=f"Wave {wave} of {{}} waits until somebody starts it.", rank=_WAITING, tone="waiting",
        reason=f"Wave {finished} has finished.", button=f"Start wave {wave}",
        url=act_url(Deployment(pk=found.about["id"]), START_NEXT_WAVE.name),
    )  # fmt: skip


def _failed(found: Found) -> Need:
    about = found.about
    if about["status"] == DeploymentStatus.FAILED:
        title, rank, tone = "{} failed.", _FAILED, "bad"
    else:
        title, rank, tone = "{} failed and was rolled back.", _REST, "warn"
    reason = _shortened(about["detail"] or about["reason"])
    return _rollout(found, title=title, rank=rank, tone=tone, reason=reason, button="Open deployment")


def _paused(found: Found) -> Need:
    return _rollout(
        found, title="{} is paused.", rank=_REST, tone="warn", button="Resume",
        reason="It is not offered to more agents until somebody resumes it.",
        url=act_url(Deployment(pk=found.about["id"]), "resume"),
    )  # fmt: skip


def _incident(found: Found) -> Need:
    about = found.about
    pipeline, stage, _ = about["subject"].split(":")
    what = f"Stage {stage} of {pipeline} stopped" if stage else f"{pipeline or 'An unknown pipeline'} had an incident"
    number = about["number"]
    key = f"incident-{about['environment']}-{about['subject'].replace(':', '-')}"
    return Need(
        key=key, rank=_REST, tone="bad", where=_where(about), at=found.at, due=None,
        title=format_html("{}.", _link(Artifact, about["artifact"], what)),
        reason=f"{count_of(number, 'capture')} in the last 24 hours.",
        button="Open capture", url=page_url(Artifact, "change", about["artifact"]),
        kind="incident", all_url=f"{list_url(Artifact)}?kind__exact={Artifact.Kind.INCIDENT_BUNDLE}",
    )  # fmt: skip


def _fixtures(found: Found) -> Need:
    about = found.about
    failing = about["failing"]
    what = f"fails {count_of(failing, 'golden fixture')}" if failing else "could not be tested with its golden fixtures"
    return Need(
        key=f"regression-{about['id']}", rank=_REST, tone="bad", where=_where(about), at=found.at, due=None,
        title=format_html("The current deployment of {} {}.", _link(Regression, about["id"], about["pipeline"]), what),
        reason="", button="See results", url=page_url(Regression, "change", about["id"]),
        kind="regression", all_url=list_url(Regression),
    )  # fmt: skip


def _webhook(model: type[Model], name: str) -> Callable[[Found], Need]:
    def sentence(found: Found) -> Need:
        about = found.about
        subject = _link(model, about["id"], f"{name} {about['name'] or about['url'].split('/')[2]}")
        title, reason = "{} was disabled.", _shortened(about["why"])
        if about["enabled"]:
            title, reason = "Deliveries to {} fail.", "All attempts have failed for more than an hour."
        return Need(
            key=f"{model._meta.model_name}-{about['id']}", rank=_REST, tone="warn", where=about["organization"],
            at=found.at, due=None, title=format_html(title, subject), reason=reason,
            button="Open webhook", url=page_url(model, "change", about["id"]),
            kind="webhook", all_url=list_url(model),
        )  # fmt: skip

    return sentence


def _expiring(
    model: type[Model], noun: str, replace_url: Callable[[Mapping[str, Any]], str]
) -> Callable[[Found], Need]:
    def sentence(found: Found) -> Need:
        about = found.about
        due = parse_datetime(about["expires_at"])
        subject = f"{noun} {about.get('name', '')} ({about['prefix']}…)".replace("  ", " ")
        where = _where(about) if "place" in about else about.get("organization", "")
        return Need(
            key=f"{model._meta.model_name}-{about['id']}", rank=_REST, tone="warn", where=where,
            at=due and due - EXPIRING_FOR, due=due,
            title=format_html("{} expires {}.", _link(model, about["id"], subject), relative_time(due)),
            reason="Before then, replace it in the programs that use it.",
            button="Create a new one", url=replace_url(about),
            kind=str(model._meta.verbose_name), all_url=list_url(model),
        )  # fmt: skip

    return sentence


_SENTENCES: Final[Mapping[Kind, Callable[[Found], Need]]] = {
    Kind.BREAK_GLASS: lambda found: _break_glass(found, "Open"),
    Kind.APPROVAL: _approval,
    Kind.HELD_WAVE: _held_wave,
    Kind.FAILED: _failed,
    Kind.PAUSED: _paused,
    Kind.INCIDENT: _incident,
    Kind.FIXTURES: _fixtures,
    Kind.WEBHOOK: _webhook(Webhook, "Webhook"),
    Kind.CHAT_WEBHOOK: _webhook(ChatWebhook, "Chat webhook"),
    Kind.USER_TOKEN: _expiring(
        UserToken, "Your token", lambda about: act_url(User(pk=about["user"]), CREATE_USER_TOKEN.name)
    ),
    Kind.ORGANIZATION_KEY: _expiring(
        OrganizationKey, "Key", lambda about: act_url(Organization(pk=about["of"]), CREATE_ORGANIZATION_KEY.name)
    ),
    Kind.ENROLLMENT_TOKEN: _expiring(
        EnrollmentToken, "Enrollment token",
        lambda about: act_url(Environment(pk=about["environment"]), CREATE_ENROLLMENT_TOKEN.name),
    ),
}  # fmt: skip


def _jobs(rows: Sequence[Found]) -> Iterator[Need]:
    """Yield a line for each kind of job in ``rows``. If some jobs were not read, the numbers are lower bounds."""
    is_cut = len(rows) > MOST_OF_KIND
    failed = sorted(rows, key=lambda row: row.about["task"])
    for task, group in groupby(failed, key=lambda row: row.about["task"]):
        jobs = list(group)
        newest, count = jobs[0], len(jobs)
        is_single = count == 1 and not is_cut
        what = f"{count:,} or more jobs" if is_cut else count_of(count, "job")
        all_url = f"{list_url(ProcrastinateJob)}?status__exact=failed"
        of_task = f"{all_url}&task_name={task}"
        url = row_url(ProcrastinateJob(pk=newest.about["id"])) if is_single else of_task
        name = f"“{TITLES.get(task, task)}”"
        link = text_link(url, f"The job {name}" if is_single else f"{what} {name}")
        title = format_html("{} failed permanently.", link)
        yield Need(
            key=f"jobs-{task}", rank=_REST, tone="bad", title=title, where="", at=newest.at, due=None,
            reason="All automatic attempts have failed.",
            button="Retry" if is_single else "See jobs",
            url=act_url(ProcrastinateJob(pk=newest.about["id"]), "retry") if is_single else of_task,
            kind="dead letter", all_url=all_url,
        )  # fmt: skip


_QUOTAS: Final = {
    Quota.AGENTS: "agents",
    Quota.STORED_BYTES: "stored bytes",
    Quota.CAPTURES_PER_DAY: "captures per day",
    Quota.DRAFTS: "drafts",
}


def _quotas(found: Found, *, is_operator: bool) -> Iterator[Need]:
    """Yield a line for each quota above 0 of which an organization has used at least 90 %."""
    about = found.about
    organization = Organization(pk=about["id"])
    for quota, what in _QUOTAS.items():
        used, limit = about[f"used_{quota}"], about[quota]
        if limit and used * 10 >= limit * 9:
            percent = used * 100 // limit
            yield Need(
                key=f"quota-{quota}-{about['id']}", rank=_REST, tone="bad" if used >= limit else "warn",
                title=format_html(
                    "{} has used {} % of its quota of {}.",
                    text_link(row_url(organization), about["organization"]), percent, what,
                ),
                where=about["organization"], reason=f"{used:,} of {limit:,}.", at=None, due=None,
                button="Set quotas" if is_operator else "See usage",
                url=act_url(organization, SET_QUOTAS.name) if is_operator else row_url(organization),
                kind="quota", all_url=list_url(Organization),
            )  # fmt: skip


def _of_fleet(environment: Environment, fleet: Fleet, *, is_rolling: bool) -> Iterator[Need]:
    """Yield a line about an environment's failed, offline and drifted agents, and one about suspected clones.

    While a rollout is under way, drifted agents are left out, because drift is then expected.
    """
    base = f"{list_url(Agent)}?environment__id__exact={environment.pk}&enrolled=yes"
    shared: dict[str, Any] = {
        "where": f"{environment.project} / {environment}", "at": None, "due": None, "button": "See agents",
        "kind": "environment", "all_url": list_url(Agent),
    }  # fmt: skip
    failed, offline = fleet.status[Heartbeat.Status.FAILED], fleet.liveness[Liveness.OFFLINE]
    counts = [
        (failed, "failed", "status=failed"),
        (offline, "offline", "liveness=offline"),
        (0 if is_rolling else fleet.by_drift[True], "drifted", "drift=yes"),
    ]
    links = [text_link(f"{base}&{query}", f"{agent_count(count)} {word}") for count, word, query in counts if count]
    if links:
        url = next(f"{base}&{query}" for count, _, query in counts if count)
        need = Need(
            key=f"agents-{environment.pk}", rank=_AGENTS if failed else _REST, tone="bad" if failed else "warn",
            title=format_html(", ".join(["{}"] * len(links)) + ".", *links),
            reason=f"The environment has {agent_count(fleet.total)}.", url=url, **shared,
        )  # fmt: skip
        yield replace(need, at=fleet.offline_since) if offline else need
    if fleet.cloned:
        url, seem = f"{base}&cloned=yes", "seems" if fleet.cloned == 1 else "seem"
        agents = text_link(url, agent_count(fleet.cloned))
        yield Need(
            key=f"clones-{environment.pk}", rank=_REST, tone="bad", url=url,
            title=format_html("{} {} to run on more than one machine.", agents, seem),
            reason="Different machines seem to use the same key. Enroll each machine separately.",
            **{**shared, "at": fleet.cloned_since},
        )  # fmt: skip
