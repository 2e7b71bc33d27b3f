"""``manage.py quota --org ID [--agents N] [--stored-bytes N] …``: show and set an organization's quotas."""

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
    "--agents": "maximum number of enrolled agents",
    "--stored-bytes": "maximum bytes of artifacts, of data derived from them, and of deploy bundles",
    "--captures-per-day": "maximum number of incident bundles uploaded in a day (UTC); reduced captures count as well",
    "--drafts": "maximum number of drafts",
}


class Command(OperatorCommand):
    help = (
        "Set an organization's quotas, and print its quotas and usage. Without options for quotas, only print them. "
        "Existing resources are kept even if they exceed a new quota."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options for the organization, each quota and the output format."""
        parser.add_argument("--org", required=True, help="id or slug of the organization")
        for option, text in _OPTIONS.items():
            parser.add_argument(option, type=int, metavar="N", help=text)
        parser.add_argument(
            "--clear",
            action="append",
            default=[],
            type=_name,  # also accepts the spelling in errors, such as stored_bytes
            choices=[_name(quota) for quota in Quota],
            metavar="NAME",
            help="remove the quota with this name; can be repeated",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, org: str, clear: list[str], json: bool, **options: Any) -> str:
        """Set the quotas, then print the quotas and the usage. Raises CommandError if an argument is invalid."""
        changes: dict[Quota, int | None] = {quota: options[quota] for quota in Quota if options[quota] is not None}
        for name in clear:
            if changes.setdefault(Quota(name.replace("-", "_")), None) is not None:
                raise CommandError(f"--{name} and --clear {name} cannot be combined", returncode=2)
        organization = find_organization(org)
        try:
            quotas.set_quotas(organization, changes, actor=system_actor("quota"))
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
