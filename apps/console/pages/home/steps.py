"""The steps from an empty installation to the first deployment, on the overview and in the bar of the other pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Model
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from apps.console.frame import site
from apps.console.frame.columns import list_url, page_url, row_url
from apps.console.frame.console_user import ConsoleUser, console_user_of, who_holds
from apps.console.frame.scope import lineage, scope_of, with_scope
from apps.console.frame.setup import Setup, SetupBar, next_step_url, set_setup, setup_of
from apps.console.pages.agents.enrollment import CREATE_ENROLLMENT_TOKEN
from apps.console.pages.home.needs_query import APPROVED, read_steps
from apps.console.pages.organizations.acts import CREATE_ENVIRONMENT, CREATE_PROJECT
from apps.console.pages.people.acts import INVITE_TO_ORGANIZATION
from apps.pipelines.models import Draft, Version
from apps.releases.models import Approval, ConfigBundle
from apps.tenancy.models import Environment, Organization, Project, Tenant
from apps.tenancy.permissions import GRANTS
from apps.tenancy.permissions import Permission as P


@dataclass(frozen=True, slots=True)
class _Step:
    """A step, and the URL of its form.

    If ``continues`` is set, the step continues with the newest row of that table: ``page`` returns the URL for the row,
    and ``url`` is used if there is no such row.
    """

    name: str
    title: str
    text: str
    needs: P | None
    url: str
    continues: type[Model] | None = None
    page: Callable[[Any], str] = row_url
    is_optional: bool = False
    shown_by: str = ""  # the URL name of the step's page, where the bar has no link to the step


def _steps() -> list[_Step]:
    return [
        _Step(
            "organization", "Create an organization",
            "You become its first administrator. Members of other organizations do not see it.",
            None, reverse("admin:start"),
        ),
        _Step(
            "project", "Create a project",
            "A project contains the environments of one product. People can have a separate role in each project.",
            P.CREATE_PROJECT, page_url(Organization, "choice", CREATE_PROJECT.name),
        ),
        _Step(
            "environment", "Create an environment",
            "Its posture decides the default settings, such as whether deployments need approval.",
            P.MANAGE_PROJECT, page_url(Project, "choice", CREATE_ENVIRONMENT.name),
        ),
        _Step(
            "membership", "Invite people", "By default, a deployment to prod needs the approval of another person.",
            P.MANAGE_ORG_MEMBERSHIPS, page_url(Organization, "choice", INVITE_TO_ORGANIZATION.name), is_optional=True,
        ),
        _Step(
            "agent", "Enroll an agent",
            "Create an enrollment token. The console then shows the command to run on the agent's machine, and waits "
            "for the agent.",
            P.MANAGE_ENVIRONMENT, page_url(Environment, "choice", CREATE_ENROLLMENT_TOKEN.name), is_optional=True,
        ),
        _Step(
            "draft", "Write a draft",
            "A draft contains the plan of a pipeline. The editor compiles the plan while you type.",
            P.OPERATE_ENVIRONMENT, page_url(Draft, "new"), shown_by="pipelines_draft_new",
        ),
        _Step(
            "version", "Promote the draft", "Promoting a draft creates an immutable version of its plan.",
            P.OPERATE_ENVIRONMENT, list_url(Draft), Draft, lambda row: page_url(Draft, "edit", row.pk),
            shown_by="pipelines_draft_edit",
        ),
        _Step(
            "configbundle", "Create a config bundle",
            "A config bundle adds parameters, adapters and tuning to a version.",
            P.OPERATE_ENVIRONMENT, list_url(Version), Version, lambda row: page_url(ConfigBundle, "new", row.pk),
            shown_by="releases_configbundle_new",
        ),
        _Step(
            "deployment", "Deploy the config bundle",
            "Choose the agents and the waves. A preview shows what would happen.",
            P.OPERATE_ENVIRONMENT, list_url(ConfigBundle), ConfigBundle,
            lambda row: page_url(ConfigBundle, "deploy", row.pk), shown_by="releases_configbundle_deploy",
        ),
        _Step(
            APPROVED, "Approve the deployment",
            "If the environment requires approval, only a break-glass deployment can start before it is approved.",
            None, list_url(Approval), Approval,
        ),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ShownStep:
    """A step, prepared for the templates."""

    name: str
    title: str
    text: str
    is_done: bool
    is_next: bool
    is_optional: bool
    url: str
    who: str  # who can do the step, and whom to ask; empty if the person has the permission, or none is needed
    shown_by: str


def show_steps(
    console_user: ConsoleUser, scope: Tenant, are_done: Mapping[str, bool] | None, *, after: str = ""
) -> list[ShownStep]:
    """Return the steps to the first deployment; none if ``are_done``, the result of ``read_steps``, is None.

    The next step is the first one that is not done, if possible one that follows the step ``after``. Optional steps
    before a step that is done are never the next one.
    """
    if are_done is None:
        return []
    steps = _steps()
    done = [step.name != APPROVED and are_done[step.name] for step in steps]
    names = [step.name for step in steps]
    done[names.index("draft")] |= done[names.index("version")]  # a version may be a copy, or outlive its draft
    last = max((number for number, each in enumerate(done) if each), default=-1)
    open_steps = [
        number for number, step in enumerate(steps) if not done[number] and not (step.is_optional and number < last)
    ]
    behind = names.index(after) if after in names else -1
    following = next((number for number in open_steps if number > behind), open_steps[0])
    shown = []
    for number, step in enumerate(steps):
        who = ""
        if step.needs is not None and not _may(console_user, scope, step.needs):
            who = f"{who_holds(step.needs)} can do this. Ask for the role, or ask somebody who has it."
        url = reverse("admin:setup_step", args=[step.name]) if step.continues else step.url
        shown.append(
            ShownStep(
                step.name, step.title, step.text, done[number], number == following, step.is_optional,
                with_scope(url, scope), who, step.shown_by,
            )
        )  # fmt: skip
    return shown


def _may(console_user: ConsoleUser, scope: Tenant, needed: P) -> bool:
    """Return whether the person has the permission in the scope or anywhere inside it."""
    if console_user.is_superuser:
        return True
    if scope is None:
        return console_user.holds_anywhere(needed)
    if needed in console_user.permissions(scope):
        return True
    roles = console_user.roles.get(scope.pk) if isinstance(scope, Organization) else None
    return roles is not None and any(needed in GRANTS[role] for role in roles.projects.values())


def remember_steps(request: HttpRequest, steps: Sequence[ShownStep]) -> Sequence[ShownStep]:
    """Turn the bar on if there are steps, otherwise off. If the person hid them, change nothing and return none."""
    if setup_of(request) is Setup.HIDDEN:
        return []
    if steps or setup_of(request) is Setup.FOLLOWED:
        set_setup(request, Setup.FOLLOWED if steps else Setup.NONE)
    return steps


# -- the bar, and the pages behind it -----------------------------------------------------------------------------


def _setup_scope(request: HttpRequest) -> Tenant:
    """Return the project of the page, or otherwise its organization, or None.

    An environment that is added to a project later needs no steps of its own.
    """
    return next(reversed(lineage(scope_of(request))[:2]), None)


def setup_bar(request: HttpRequest) -> SetupBar | None:
    """Return the bar if the session follows the steps and some are left (see ``_setup_scope``).

    Returns None on the overview, which shows the steps itself.
    """
    if setup_of(request) is not Setup.FOLLOWED or request.path == reverse("admin:index"):
        return None
    scope, console_user = _setup_scope(request), console_user_of(request)
    steps = show_steps(console_user, scope, read_steps(console_user, scope))
    for number, step in enumerate(steps, 1):
        if step.is_next:
            skip = next_step_url(request, after=step.name) if step.is_optional else ""
            every = with_scope(reverse("admin:index"), scope, explicit=True)
            match = request.resolver_match
            is_here = match is not None and match.url_name == step.shown_by
            return SetupBar(number, len(steps), step.title, step.who, "" if is_here else step.url, skip, every)
    return None


@require_GET
def _next_view(request: HttpRequest) -> HttpResponseRedirect:
    """Redirect to the next step, or to the overview if no step is left or the person lacks its permission."""
    scope, console_user = _setup_scope(request), console_user_of(request)
    steps = show_steps(
        console_user, scope, read_steps(console_user, scope), after=request.GET.get("after", "")
    )  # fmt: skip
    following = next((step for step in steps if step.is_next and not step.who), None)
    return HttpResponseRedirect(following.url if following else with_scope(reverse("admin:index"), scope))


@require_GET
def _step_view(request: HttpRequest, name: str) -> HttpResponseRedirect:
    """Redirect to the step's form for the newest row to continue with, or to the step's URL if there is no such row.

    An unknown name stands for the first step.
    """
    scope = scope_of(request)
    step = next((each for each in _steps() if each.name == name), _steps()[0])
    if step.continues is None:
        return HttpResponseRedirect(with_scope(step.url, scope))
    page: Any = site.get_model_admin(step.continues)
    rows = page.visible_rows(request) if page.has_view_permission(request) else step.continues._default_manager.none()
    newest = page.in_scope(rows, scope).order_by("-pk").first()
    return HttpResponseRedirect(step.page(newest) if newest else with_scope(step.url, scope))


@require_POST
def _hide_view(request: HttpRequest) -> HttpResponseRedirect:
    """Hide the steps for this session, or show them again."""
    set_setup(request, Setup.FOLLOWED if "show" in request.POST else Setup.HIDDEN)
    return HttpResponseRedirect(with_scope(reverse("admin:index"), scope_of(request)))


site.add_page("setup/", "setup", _next_view)
site.add_page("setup/hide/", "setup_hide", _hide_view)
site.add_page("setup/<slug:name>/", "setup_step", _step_view)
site.setup_bar = setup_bar
