"""``manage.py installation_operator grant|revoke --email EMAIL``, ``… list``: who sees everything in the console."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.tenancy.actors import system
from apps.tenancy.models import User
from apps.tenancy.services import accounts
from byteor_cloud.errors import Conflict


class Command(BaseCommand):
    help = (
        "Give a person the role of installation operator, or take it away. An operator sees every organization in the "
        "console, jobs and events that belong to none, and may act on all of them. The last one may go too."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """What to do, and with whom."""
        acts = parser.add_subparsers(dest="act", required=True)
        for act, text in (("grant", "make the person an operator"), ("revoke", "take the role away")):
            acts.add_parser(act, help=text).add_argument("--email", required=True, help="address of the account")
        acts.add_parser("list", help="print a line for each operator: address and id")

    def handle(self, *args: Any, act: str, email: str = "", **options: Any) -> str:
        """Do it, or say that it is so already. Raises CommandError without such an account."""
        if act == "list":
            operators = User.objects.filter(is_superuser=True).order_by("email", "id")
            return "\n".join(f"{user.email} {user.pk}" for user in operators)
        user = User.objects.find_by_verified_email(email)
        if user is None:
            raise CommandError(f"there is no account with the address {email}: invite the person, or bootstrap")
        is_operator = act == "grant"
        try:
            changed = accounts.set_installation_operator(
                user, is_operator=is_operator, actor=system("installation_operator")
            )
        except Conflict as refused:
            raise CommandError(refused.detail) from None
        if is_operator:
            return (
                f"{user.email} is {'now an installation operator' if changed else 'an installation operator already'}"
            )
        return f"{user.email} is {'no longer an' if changed else 'no'} installation operator"
