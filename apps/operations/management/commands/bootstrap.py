"""``manage.py bootstrap --org NAME --email EMAIL``: create an organization, and credentials of its first org_admin."""

from __future__ import annotations

import json as jsonlib
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.db import IntegrityError, transaction
from django.forms import EmailField

from apps.operations.management import installation
from apps.operations.management.operator_command import OperatorCommand
from apps.tenancy.actors import Actor, system_actor
from apps.tenancy.models import User
from apps.tenancy.services import accounts, organizations, tokens
from byteor_cloud.server import addresses


def create_login_url(user: User, *, actor: Actor) -> str:
    """Create a one-time sign-in link and return its URL, which cannot be retrieved again."""
    return f"{addresses.public_url(settings.CONFIG)}/auth/link/{accounts.create_sign_in_link(user=user, actor=actor)}"


class Command(OperatorCommand):
    help = "Create an organization with its first org_admin, and print a user token and a one-time sign-in link."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options for the organization, the person and the output format."""
        parser.add_argument("--org", required=True, metavar="NAME", help="name of the new organization")
        parser.add_argument("--email", required=True, help="e-mail address of the first org_admin")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, org: str, email: str, json: bool, **options: Any) -> str | None:
        """Migrate the database. Then create the organization, the token, the link and, if it is missing, the account.

        All of them are created in one transaction.
        """
        self._check(org, email)
        installation.migrate()
        actor = system_actor("bootstrap")
        try:
            with transaction.atomic():
                user = accounts.get_or_create_account(email, actor=actor)
                organization = organizations.create_organization(name=org, owner=user, actor=actor)
                _, token = tokens.create_user_token(user=user, name="bootstrap", actor=actor)
                created = {
                    "org_id": str(organization.pk),
                    "user_id": str(user.pk),
                    "token": token,
                    "login_url": create_login_url(user, actor=actor),
                }
        except IntegrityError:
            raise CommandError(f"an organization with the name {org!r} or a similar name already exists") from None
        return format_fields(created, as_json=json)

    @staticmethod
    def _check(org: str, email: str) -> None:
        try:
            EmailField(max_length=254).clean(email)
        except ValidationError:
            raise CommandError(f"{email!r} is not an e-mail address") from None
        if not (1 <= len(org) <= 200 and org.isprintable() and org.strip()):
            raise CommandError("--org must be 1 to 200 printable characters, not only spaces")


def format_fields(fields: dict[str, str], *, as_json: bool) -> str:
    """Format the fields as one line of JSON, or as one line of text for each."""
    if as_json:
        return jsonlib.dumps(fields)
    return "\n".join(f"{key:10} {value}" for key, value in fields.items())
