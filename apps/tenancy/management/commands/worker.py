"""``manage.py worker``: the process that runs jobs; ``serve`` starts one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from django.core.management.base import BaseCommand

from byteor_cloud.jobs import rescue_stalled, worker_app

HEARTBEAT_S = 2.0
STALLED_AFTER_S = 10.0
GRACE_S = 20.0


class Command(BaseCommand):
    help = "Run the worker until SIGTERM."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run jobs, and put those of killed workers back into the queue."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        app = worker_app()
        async with app.open_async():
            rescuer = asyncio.create_task(rescue_stalled(app, every_s=STALLED_AFTER_S / 2, after_s=STALLED_AFTER_S))
            try:
                await app.run_worker_async(
                    concurrency=4,
                    delete_jobs="successful",
                    fetch_job_polling_interval=2.0,
                    update_heartbeat_interval=HEARTBEAT_S,
                    stalled_worker_timeout=STALLED_AFTER_S,
                    shutdown_graceful_timeout=GRACE_S,
                )
            finally:
                rescuer.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await rescuer
