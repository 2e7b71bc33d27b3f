"""``manage.py sign_in_link --email EMAIL``: create a one-time sign-in link for a person with an account."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from apps.operations.management.commands.bootstrap import create_login_url, format_fields
from apps.operations.management.operator_command import OperatorCommand
from apps.tenancy.actors import system_actor
from apps.tenancy.models import User


class Command(OperatorCommand):
    help = (
        "Print a one-time sign-in link for a person whose e-mail address was invited, verified or given to bootstrap."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options for the person and the output format."""
        parser.add_argument("--email", required=True, help="e-mail address of the person")
        parser.add_argument("--json", action="store_true", help="print JSON")

    @transaction.atomic
    def handle(self, *args: Any, email: str, json: bool, **options: Any) -> str:
        """Create and print the link. The person's roles do not change."""
        user = User.objects.find_by_verified_email(email)
        if user is None:
            raise CommandError(
                f"there is no account with the verified address {email}: invite the person first, or run bootstrap"
            )
        if not user.is_active:
            raise CommandError(f"the account of {email} is not active")
        link = create_login_url(user, actor=system_actor("sign_in_link"))
        return format_fields({"user_id": str(user.pk), "login_url": link}, as_json=json)
