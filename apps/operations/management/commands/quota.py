"""``manage.py quota --org ID [--agents N] [--stored-bytes N] …``: show and set the quotas of an organization."""

from __future__ import annotations

import json as jsonlib
from typing import Any

from django.core.management.base import CommandError, CommandParser

from apps.operations.management.installation import find_organization
from apps.operations.management.operator_command import OperatorCommand
from apps.tenancy.actors import system_actor
from apps.tenancy.models import Quota
from apps.tenancy.services import quotas
from apps.tenancy.services.usage import read_usage
from byteor_cloud.errors import InvalidInput

_OPTIONS = {
    "--agents": "the most enrolled agents",
    "--stored-bytes": "the most bytes of artifacts, of what is derived from them, and of deploy bundles",
    "--captures-per-day": "the most incident bundles that are uploaded in a day (UTC)",
    "--drafts": "the most drafts",
}


class Command(OperatorCommand):
    help = (
        "Set quotas of an organization, and print its quotas with what it uses. Without options for quotas, it only "
        "prints. What the organization has already stays, also if it is more than a new quota."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the organization, an option for each quota, and the output format."""
        parser.add_argument("--org", required=True, help="id or slug of the organization")
        for option, text in _OPTIONS.items():
            parser.add_argument(option, type=int, metavar="N", help=text)
        parser.add_argument(
            "--clear",
            action="append",
            default=[],
            type=_name,  # the name in errors: stored_bytes
            choices=[_name(quota) for quota in Quota],
            metavar="NAME",
            help="remove the quota with this name; can be given several times",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, org: str, clear: list[str], json: bool, **options: Any) -> str:
        """Set and print. Raises CommandError."""
        wanted: dict[Quota, int | None] = {quota: options[quota] for quota in Quota if options[quota] is not None}
        for name in clear:
            if wanted.setdefault(Quota(name.replace("-", "_")), None) is not None:
                raise CommandError(f"--{name} and --clear {name} exclude each other", returncode=2)
        organization = find_organization(org)
        try:
            quotas.set_quotas(organization, wanted, actor=system_actor("quota"))
        except InvalidInput as refused:
            raise CommandError(refused.detail, returncode=2) from None
        usage = read_usage(organization)
        if json:
            shown = {"org_id": str(organization.pk), "limits": dict(usage.limits), "used": dict(usage.used)}
            return jsonlib.dumps(shown)
        return "\n".join(
            f"{_name(quota):17} {usage.used[quota]}{', no quota' if limit is None else f' of {limit}'}"
            for quota, limit in usage.limits.items()
        )


def _name(quota: str) -> str:
    return quota.replace("_", "-")
