"""The frame of every page: its scope, its menu, its titles, and its pages for what is refused or empty."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from playwright.sync_api import Page, expect

from apps.artifacts.models import UnreferencedBlob
from apps.fleet.models import Agent
from apps.pipelines.models import Version
from apps.releases.models import Deployment
from apps.tenancy.console import site
from apps.tenancy.console.scope import scope_condition
from apps.tenancy.models import (
    AuditEvent,
    Environment,
    Membership,
    Organization,
    Project,
    RateCounter,
    SigningKey,
    SignInLink,
    User,
)
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import accounts, members, organizations
from tests.browser.conftest import sign_in
from tests.browser.filled import MODELS, fill, row_page, signed_in, superuser, table
from tests.worlds import World

pytestmark = pytest.mark.django_db


@pytest.mark.django_db(transaction=True)
def test_the_switcher_works_by_mouse_and_keyboard(
    open_page: Callable[..., Page], world: World, shot: Callable[..., None]
) -> None:
    made = fill(world)
    page = sign_in(open_page(), world.admin.user)
    shot(page, "overview-all", widths=(1440, 390))
    page.goto(f"{table(Agent)}?in={made.agent.environment_id}")
    shot(page, "agents", widths=(1440, 1000, 390))
    page.goto(row_page(made.deployment))
    shot(page, "deployment", widths=(1440, 1000, 390))
    page.goto("/admin/records/")
    shot(page, "records", widths=(1440, 390))
    page.goto(f"/admin/releases/deployment/{uuid4()}/change/")
    shot(page, "404", widths=(1440, 390))
    page.goto(f"/admin/?in={world.dev.pk}")
    shot(page, "first", widths=(1440, 390))
    page.locator(".switch summary").nth(2).click()
    shot(page, "menu", widths=(1440, 390))
    page.goto(f"/admin/?in={world.prod.pk}")
    shot(page, "prod", widths=(1440, 390))
    page.goto(row_page(made.agent.environment))
    shot(page, "hub", widths=(1440, 390))
