"""``manage.py sign_in_link --email EMAIL``: for a member where there is no identity provider."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from apps.operations.management.commands.bootstrap import credentials_of, show
from apps.tenancy.models import User


class Command(BaseCommand):
    help = "Print a user token and a one-time sign-in link for a person who was invited."

    def add_arguments(self, parser: CommandParser) -> None:
        """Who."""
        parser.add_argument("--email", required=True)
        parser.add_argument("--json", action="store_true")

    @transaction.atomic
    def handle(self, *args: Any, email: str, json: bool, **options: Any) -> str:
        """The person must have been invited: this gives nobody a role."""
        user = User.objects.find_by_verified_email(email)
        if user is None:
            raise CommandError(f"nobody with the address {email} was invited")
        if not user.is_active:
            raise CommandError(f"the account of {email} is not active")
        return show(credentials_of(user), as_json=json)
