"""The OpenAPI texts of the operations for probes and metrics."""

from __future__ import annotations

from byteor_cloud.api.operations import Operation, Operations, Tag

HEALTH = Operations(
    Tag.HEALTH,
    {
        "get": Operation(
            "checkLiveness",
            "Check that the process is alive",
            "Answers 200 while the process serves requests. It uses neither the database nor the storage, so use it "
            "for liveness probes.",
        ),
    },
)
READY = Operations(
    Tag.HEALTH,
    {
        "get": Operation(
            "checkReadiness",
            "Check that the service can take traffic",
            "Checks the database, its migrations and the storage. If a check fails, it answers 503 with the names of "
            "the failed checks. Use it for readiness probes and load balancers.",
        ),
    },
)
METRICS = Operations(
    Tag.HEALTH,
    {
        "get": Operation(
            "scrapeMetrics",
            "Scrape metrics",
            "Returns the metrics of all processes in the Prometheus text format. No label contains the name of an "
            "organization or of anything that belongs to one.",
        ),
    },
)
