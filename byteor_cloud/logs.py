"""Log lines: one shape for ours and the libraries', and no credential in any of them."""

from __future__ import annotations

import logging
import re
from typing import Any, override

import structlog
from django.utils.log import CallbackFilter

# Our credentials (also in the path of a sign-in link), webhooks' secrets, JWTs, and approval credentials, which begin
# as JWTs do.
_SECRET = re.compile(r"(bor_(?:usr|org|enr|agt)_)[0-9A-Za-z]{20,}|(whsec_)[\w+/=]{20,}|(eyJ)[\w-]{8,}\.[\w.-]*")
_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


class Formatter(structlog.stdlib.ProcessorFormatter):
    """Renders a record; whatever looks like a secret is cut, wherever in the line or the traceback it stands."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        return _SECRET.sub(lambda match: f"{match[match.lastindex or 0]}…", super().format(record))


def configure() -> None:
    """Send structlog's events through the standard library's logging."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,  # first: what is not logged costs nothing
            *_PROCESSORS,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def configuration(log_format: str) -> dict[str, Any]:
    """``LOGGING``: everything goes to stderr, since a command's stdout is its answer."""
    # No renderer that shows a traceback's variables: they hold credentials.
    rendering = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
        if log_format == "json"
        else [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": Formatter,
                "foreign_pre_chain": _PROCESSORS,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
            }
        },
        "filters": {"unforeseen": {"()": CallbackFilter, "callback": lambda record: record.exc_info is not None}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {
            "django.server": {"level": "WARNING"},
            # Only tracebacks: that a request failed is in the access log (byteor_cloud.api.system.observe).
            "django.request": {"level": "ERROR", "filters": ["unforeseen"]},
            "procrastinate": {"level": "WARNING"},
            # At INFO these tell of every connection that is lent, and of every idle agent.
            "psycopg": {"level": "WARNING"},
            "psycopg.pool": {"level": "WARNING"},
            # gunicorn takes its loggers out of the tree, so they need the handler themselves.
            "gunicorn.error": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        },
    }
