"""``manage.py installation_operator grant|revoke --email EMAIL`` or ``list``: manage installation operators."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from apps.operations.management.operator_command import OperatorCommand
from apps.tenancy.actors import system_actor
from apps.tenancy.models import User
from apps.tenancy.services import accounts
from byteor_cloud.errors import Conflict


class Command(OperatorCommand):
    help = (
        "Grant or revoke the role of installation operator. Operators see and manage all organizations in the console, "
        "and the jobs and events that belong to no organization. Even the role of the last operator can be revoked."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the subcommands."""
        acts = parser.add_subparsers(dest="act", required=True)
        for act, text in (("grant", "grant the role to a person"), ("revoke", "revoke the role of a person")):
            acts.add_parser(act, help=text).add_argument("--email", required=True, help="address of the account")
        acts.add_parser("list", help="print the address and the id of each operator")

    def handle(self, *args: Any, act: str, email: str = "", **options: Any) -> str:
        """Grant or revoke the role, or list the operators. Raises CommandError if the change is not possible."""
        if act == "list":
            operators = User.objects.filter(is_superuser=True).order_by("email", "id")
            return "\n".join(f"{user.email} {user.pk}" for user in operators)
        user = User.objects.find_by_verified_email(email)
        if user is None:
            raise CommandError(
                f"there is no account with the verified address {email}: invite the person first, or run bootstrap"
            )
        is_operator = act == "grant"
        try:
            changed = accounts.set_installation_operator(
                user, is_operator=is_operator, actor=system_actor("installation_operator")
            )
        except Conflict as refused:
            raise CommandError(refused.detail) from None
        if is_operator:
            return f"{user.email} is {'now' if changed else 'already'} an installation operator"
        return f"{user.email} is {'no longer' if changed else 'not'} an installation operator"
