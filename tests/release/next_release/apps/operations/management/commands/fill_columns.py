"""``manage.py fill_columns``: enqueue a job of the next release for each agent."""

from __future__ import annotations

from typing import Any

from apps.operations.tasks import FillColumn
from django.core.management.base import BaseCommand
from django.db import transaction

from apps.fleet.models import Agent
from byteor_cloud.worker.jobs import enqueue


class Command(BaseCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        """Enqueue the jobs, and print their number."""
        agents = list(Agent.objects.values_list("id", "environment__project__organization_id"))
        with transaction.atomic():
            for agent, organization in agents:
                enqueue(FillColumn(agent_id=str(agent)), organization=organization)
        self.stdout.write(str(len(agents)))
