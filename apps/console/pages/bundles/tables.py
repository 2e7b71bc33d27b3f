"""Console pages of config bundles, with the forms that create and deploy one."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import Exists, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path

from apps.console.frame import (
    Act,
    ActionPage,
    FoundBy,
    ReadOnlyAdmin,
    VisibleRowsFilter,
    relative_time,
    row_link,
    short_id,
    site,
    state_pill,
    with_note,
)
from apps.console.frame.acting import button
from apps.console.frame.columns import act_url, environment_link, page_url, row_url
from apps.console.frame.console_user import (
    ConsoleUser,
    actor_of,
    check_may_operate,
    console_user_of,
    may_operate,
)
from apps.console.frame.forms import new_form_id, send_once
from apps.console.frame.next_steps import CHOSEN, NextStep, conclude, next_of, result_of, returning
from apps.console.pages.agents.enrollment import CREATE_ENROLLMENT_TOKEN
from apps.console.pages.bundles.choosing import choices_panel, find_newest_bundles
from apps.console.pages.bundles.configuration import COLUMNS, configuration_panel
from apps.console.pages.bundles.copying import COPY_BUNDLE, DEPLOY, describe_missing_secrets
from apps.console.pages.bundles.new_bundle import NewConfigBundle, start_from
from apps.console.pages.deployments.deploying import Deploy, Outlook, preview
from apps.console.pages.deployments.phrases import describe_warnings
from apps.console.pages.regressions.acts import TEST_BUNDLE, tests_panel
from apps.pipelines.models import Version
from apps.releases.api import commands
from apps.releases.api.serializers.bundles import ConfigBundleSerializer
from apps.releases.api.serializers.deployments import DeploymentSerializer
from apps.releases.models import ConfigBundle, Deployment, KnownBad
from apps.releases.services import bundles, deployments
from apps.releases.services.changes import Changes, compare, find_current
from apps.tenancy.models import Environment
from apps.tenancy.permissions import Permission as P
from apps.tenancy.services.sent_forms import FormResult
from byteor.engine.configuration import RuntimeConfig, diff_configurations
from byteor_cloud.api.compute_slot import compute_for
from byteor_cloud.computing.configuration_checks import find_warnings
from byteor_cloud.database.large_columns import without_large

_SHOWN = 10
CLEAR = Act.of(
    commands.clear,
    label="Clear known bad",
    done="Known bad cleared for {}",
    explain="The configuration can be deployed again, and rollbacks can restore it again.",
    icon="restart_alt",
    comment="required",
    applies=lambda row: row.known_bad,
)


def _is_org_admin(request: HttpRequest, environment: Environment) -> bool:
    # Only org_admin and superusers have this permission.
    return P.MANAGE_ORG_MEMBERSHIPS in console_user_of(request).permissions(environment)


def _origin_facts(row: ConfigBundle) -> list[tuple[str, str]]:
    """Return a list with the fact that names the original of a copy; an empty list if there is none to link to."""
    if row.origin_id is None:
        return []
    original = (
        ConfigBundle.objects.filter(pk=row.origin_id, environment__deleted_at=None)
        .select_related("environment")
        .only("name", "environment__name")
        .first()
    )
    return [("Copied from", row_link(original, f"{original} in {original.environment}"))] if original else []


def _requested(request: HttpRequest, bundle: ConfigBundle, deployment: Deployment) -> FormResult:
    """Return the result of the form that requested the deployment. The next step is its approval if it needs one."""
    approval = deployment.approval
    step = NextStep("Open the approval", lambda _: row_url(approval)) if approval else None
    done = f"Deployment of {bundle.version} requested."
    tenant, console_user = bundle.environment, console_user_of(request)
    return result_of(deployment, done, step, tenant=tenant, console_user=console_user)


def _urls_of_missing(
    environment: Environment, outlook: Outlook | None, held: Collection[P], *, back: str
) -> list[tuple[str, str]]:
    """Return links for adding what a deployment lacks: agents, or people who can approve. Each is a URL and a text.

    Links that the person may not use are left out.
    """
    if outlook is None:
        return []
    found = []
    if not outlook.count and P.MANAGE_ENVIRONMENT in held:
        found.append((act_url(environment, CREATE_ENROLLMENT_TOKEN.name), "Enroll an agent"))
    if outlook.lacks_people and P.MANAGE_PROJECT in held:
        found.append((act_url(environment.project, "invite"), "Invite a person"))
    return [(returning(url, back), text) for url, text in found]


@admin.register(ConfigBundle, site=site)
class ConfigBundleAdmin(ReadOnlyAdmin):
    tenant = "environment"
    section = "Config bundles"
    found_by = FoundBy("inventory_2", name="name", hashes=("config_hash",))
    related = ("environment__project__organization", "version")
    list_display = ("name", "version", "bad", "environment", "tuning_profile", "config_hash", "created_at")
    narrow_columns = ("version", "bad")
    list_filter = ("tuning_profile", ("environment", VisibleRowsFilter))
    search_fields = ("name", "version__name", "config_hash", "created_by", "=id")
    acts = (
        CLEAR,
        TEST_BUNDLE,
        COPY_BUNDLE,
    )
    action_pages = (
        ActionPage(
            label="Deploy", also="release rollout", icon="rocket_launch", needs=P.OPERATE_ENVIRONMENT, model=Version,
            url_of=lambda bundle: page_url(ConfigBundle, "deploy", bundle.pk), find=find_newest_bundles,
        ),
        ActionPage(
            label="Deploy", also="release rollout", icon="rocket_launch", needs=P.OPERATE_ENVIRONMENT,
            model=Environment, url_of=lambda environment: page_url(ConfigBundle, "choose", environment.pk),
        ),
    )  # fmt: skip

    def narrow(self, queryset: QuerySet[Any], console_user: ConsoleUser) -> QuerySet[Any]:
        bad = KnownBad.objects.filter(environment=OuterRef("environment"), config_hash=OuterRef("config_hash"))
        return super().narrow(queryset, console_user).annotate(known_bad=Exists(bad))  # type: ignore[no-any-return]

    # -- creating and deploying ---------------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        """Add the pages on which people create, choose and deploy a config bundle."""
        views = (self.new_view, self.deploy_view, self.choose_view)
        new, deploy, choose = map(self.admin_site.admin_view, views)
        return [
            path("new/<uuid:version_id>/", new, name="releases_configbundle_new"),
            path("<uuid:pk>/deploy/", deploy, name="releases_configbundle_deploy"),
            path("deploy/<uuid:environment_id>/", choose, name="releases_configbundle_choose"),
            *super().get_urls(),
        ]

    def _buttons(self, request: HttpRequest, row: Any) -> list[dict[str, Any]]:
        if not may_operate(request, row.environment):
            return super()._buttons(request, row)
        deploy = button("Deploy", "rocket_launch", page_url(ConfigBundle, "deploy", row.pk), "primary")
        return [deploy, *super()._buttons(request, row)]

    def summary(self, request: HttpRequest, row: ConfigBundle) -> dict[str, Any]:
        """Show the facts, warnings, configuration and deployments of the config bundle."""
        row.refresh_from_db(fields=COLUMNS)
        made = without_large(Deployment.objects.filter(config_bundle=row).select_related("environment"))
        panel: dict[str, Any] = {
            "title": "Deployments",
            "columns": ("Deployment", "Status", "Requested by"),
            "rows": [
                (
                    row_link(each, f"{row.version} to {each.environment}"),
                    state_pill(each.status),
                    with_note(relative_time(each.created_at), each.requested_by),
                )
                for each in made.order_by("-pk")[:_SHOWN]
            ],
            "empty": "This config bundle has not been deployed.",
        }
        if may_operate(request, row.environment) and not panel["rows"]:
            panel["empty"] += " To deploy it, press Deploy. The next page shows a preview first."
        return {
            "warning": " ".join([*describe_warnings(bundles.warnings_of(row)), describe_missing_secrets(row)]).strip(),
            "facts": [
                ("Version", row_link(row.version)),
                ("Environment", environment_link(row.environment)),
                ("Tuning profile", row.tuning_profile),
                ("Config hash", short_id(row.config_hash)),
                ("Known bad", self.bad(row)),
                *_origin_facts(row),
                ("Created", with_note(relative_time(row.created_at), row.created_by)),
            ],
            "panels": [configuration_panel(row, compute=compute_for(request)), panel, tests_panel(row)],
        }

    def new_view(self, request: HttpRequest, version_id: UUID) -> HttpResponse:
        """Show the form for a new config bundle with a preview of the changes, or create the config bundle."""
        version = self.admin_site.get_model_admin(Version).get_object(request, str(version_id))
        if version is None:
            raise Http404
        check_may_operate(request, version.environment, "config_bundle")
        current = find_current(version.environment_id, version.name)
        running = current.config_bundle if current else None
        form = NewConfigBundle(version, request.POST or None)
        config = None
        if request.method == "POST" and form.is_valid():
            config = form.send(
                ConfigBundleSerializer, form.body(), version.environment,
                lambda data: self._check_or_create(request, version, data),
            )  # fmt: skip
            if isinstance(config, dict):
                return HttpResponseRedirect(conclude(request, config))
        elif request.method != "POST":
            form.initial = start_from(running, form)
        context = {
            "form": form,
            "form_id": new_form_id(),
            "version": version,
            "current": current,
            "back": next_of(request) or row_url(version),
            "warnings": config and describe_warnings(find_warnings(version.stages, config.stage_config)),
            "changes": config and Changes(
                current, None,
                compute_for(request)(
                    diff_configurations, bundles.runtime_config(running) if running else None, config
                ),
            ),
        }  # fmt: skip
        return self._page(request, "console/new_config_bundle.html", f"New config bundle for {version}", context)

    @staticmethod
    def _check_or_create(request: HttpRequest, version: Version, data: dict[str, Any]) -> FormResult | RuntimeConfig:
        given = {name: value for name, value in data.items() if name not in {"name", "version"}}
        checked = bundles.check_configuration(version, **given, compute=compute_for(request))
        deploys = "_deploy" in request.POST
        if not deploys and "_create" not in request.POST:
            return checked.config

        def create() -> FormResult:
            bundle = bundles.create_config_bundle(
                environment=version.environment, actor=actor_of(request), **data, checked=checked
            )
            done, console_user = f"Config bundle {bundle} created.", console_user_of(request)
            result = result_of(
                bundle, done, None if deploys else DEPLOY, tenant=version.environment, console_user=console_user
            )  # fmt: skip
            return {**result, "url": page_url(ConfigBundle, "deploy", bundle.pk)} if deploys else result

        return send_once(request, create)

    def deploy_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Show the form for a deployment of a config bundle with a preview, or request the deployment."""
        bundle = self.get_object(request, str(pk))
        if bundle is None:
            raise Http404
        check_may_operate(request, bundle.environment, "deploy")
        is_org_admin = _is_org_admin(request, bundle.environment)
        data = request.POST if request.method == "POST" else None
        form = Deploy(bundle, data, is_org_admin=is_org_admin, user_id=console_user_of(request).user_id)
        outlook = None
        if form.is_valid() and (body := form.body()) is not None:
            reason = request.POST.get("break_glass_reason", "").strip() if "_break_glass" in request.POST else None
            if reason:
                body["break_glass"] = {"reason": reason}

            def use(values: dict[str, Any]) -> FormResult | Outlook:
                values["reviewer_ids"] = values.pop("reviewers", None)
                if "_create" not in request.POST and not reason:
                    return preview(bundle, values, actor_of(request), is_org_admin=is_org_admin)
                new = partial(deployments.create_deployment, is_org_admin=is_org_admin, actor=actor_of(request))
                return send_once(
                    request, lambda: _requested(request, bundle, new(environment=bundle.environment, **values))
                )

            made = form.send(DeploymentSerializer, body, bundle.environment, use)
            if isinstance(made, dict):
                return HttpResponseRedirect(conclude(request, made))
            outlook = made
        policy = bundle.environment.effective_settings.release
        held = console_user_of(request).permissions(bundle.environment)
        context = {
            "form": form,
            "bundle": bundle,
            "outlook": outlook,
            "may_break_glass": is_org_admin and policy.approvals_required and not bundle.known_bad,
            "clear": self._clear_url(request, bundle),
            "needs_approval": policy.approvals_required,
            "creating": _urls_of_missing(bundle.environment, outlook, held, back=request.path),
        }
        if "_live" in request.POST:
            return TemplateResponse(request, "console/outlook.html", context)
        context |= {
            "form_id": new_form_id(),
            "is_breaking_glass": "_break_glass" in request.POST and context["may_break_glass"] and not form.errors,
            "changes": compare(
                find_current(bundle.environment_id, bundle.version.name), bundle, compute=compute_for(request)
            ),
        }
        return self._page(request, "console/deploy.html", f"Deploy {bundle.version} ({bundle})", context)

    def choose_view(self, request: HttpRequest, environment_id: UUID) -> HttpResponse:
        """List the newest config bundles, from which the person chooses one to deploy to an environment."""
        environment = self.admin_site.get_model_admin(Environment).get_object(request, str(environment_id))
        if environment is None:
            raise Http404
        check_may_operate(request, environment, "deploy")
        rows = self.get_queryset(request).filter(environment=environment)
        newest = rows.order_by("-pk").first() if CHOSEN in request.GET else None
        if newest is not None and str(newest.pk) == request.GET[CHOSEN]:  # the person has just created it
            return HttpResponseRedirect(page_url(ConfigBundle, "deploy", newest.pk))
        context = {"panel": choices_panel(environment, rows, back=request.get_full_path())}
        return self._page(request, "console/choose_bundle.html", "Deploy", context)

    def _page(self, request: HttpRequest, template: str, title: str, context: dict[str, Any]) -> HttpResponse:
        shown = {**self.admin_site.each_context(request), "opts": self.opts, "title": title, **context}
        return TemplateResponse(request, template, shown)

    def _clear_url(self, request: HttpRequest, row: Any) -> str:
        """Return the URL of the form that clears the known-bad state; "" if not known bad or not permitted."""
        return act_url(row, CLEAR.name) if row.known_bad and may_operate(request, row.environment) else ""

    def page_title(self, row: ConfigBundle) -> str:
        return f"Config bundle {row} of {row.version}"

    @admin.display(description="Known bad")
    def bad(self, row: Any) -> str:
        return state_pill("known bad") if row.known_bad else "-"
