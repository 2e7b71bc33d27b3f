"""``manage.py bootstrap --org NAME --email EMAIL``: the first org_admin."""

from __future__ import annotations

import json as jsonlib
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import IntegrityError, transaction
from django.forms import EmailField

from apps.operations.management import installation
from apps.tenancy.actors import system
from apps.tenancy.models import User
from apps.tenancy.services import accounts, organizations, tokens


def credentials_of(user: User) -> dict[str, str]:
    """A new user token and a one-time link; both are shown this once."""
    actor = system("bootstrap")
    _, token = tokens.create_user_token(user=user, name="bootstrap", actor=actor)
    link = accounts.create_sign_in_link(user=user, actor=actor)
    return {
        "user_id": str(user.pk),
        "token": token,
        "login_url": f"{installation.site(settings.CONFIG)}/auth/link/{link}",
    }


class Command(BaseCommand):
    help = "Create an organization with its first org_admin; prints a user token and a one-time sign-in link."

    def add_arguments(self, parser: CommandParser) -> None:
        """Both are needed."""
        parser.add_argument("--org", required=True)
        parser.add_argument("--email", required=True)
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, org: str, email: str, json: bool, **options: Any) -> str | None:
        """One transaction: all of it or nothing."""
        self._check(org, email)
        installation.migrate()
        try:
            with transaction.atomic():
                user = accounts.get_or_create_account(email)
                organization = organizations.create_organization(name=org, owner=user, actor=system("bootstrap"))
                made = {"org_id": str(organization.pk), **credentials_of(user)}
        except IntegrityError:
            raise CommandError(f"an organization named {org!r}, or much like it, exists already") from None
        return show(made, as_json=json)

    @staticmethod
    def _check(org: str, email: str) -> None:
        try:
            EmailField(max_length=254).clean(email)
        except ValidationError:
            raise CommandError(f"{email!r} is no e-mail address") from None
        if not (1 <= len(org) <= 200 and org.isprintable() and org.strip()):
            raise CommandError("--org must be 1 to 200 printable characters")


def show(made: dict[str, str], *, as_json: bool) -> str:
    """One line of JSON, or a line each."""
    if as_json:
        return jsonlib.dumps(made)
    return "\n".join(f"{key:10} {value}" for key, value in made.items())
