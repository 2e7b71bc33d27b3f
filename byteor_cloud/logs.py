"""The format of log lines, for the application and its libraries, with credentials masked."""

from __future__ import annotations

import logging
import re
from typing import Any, override

import structlog
from django.utils.log import CallbackFilter

# API credentials, secrets of sign-in links, device codes, webhook secrets, JWTs, and approval credentials, which start
# like JWTs.
_SECRET = re.compile(r"(bor_(?:usr|org|enr|agt|lnk|dev)_)[0-9A-Za-z]{20,}|(whsec_)[\w+/=]{20,}|(eyJ)[\w-]{8,}\.[\w.-]*")
_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def mask_secrets(text: str) -> str:
    """Return the text with our credentials, and anything that looks like a JWT, cut off after their prefixes."""
    return _SECRET.sub(lambda match: f"{match[match.lastindex or 0]}…", text)


class Formatter(structlog.stdlib.ProcessorFormatter):
    """A log formatter that masks our credentials and anything that looks like a JWT, including in tracebacks."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        return mask_secrets(super().format(record))


def configure() -> None:
    """Send structlog's events to the standard library's logging."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,  # first, so that suppressed events skip the other processors
            *_PROCESSORS,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def logging_settings(log_format: str) -> dict[str, Any]:
    """Return Django's ``LOGGING``. All lines go to stderr, because a command prints its result to stdout."""
    # The renderers must not show a traceback's variables, which may contain credentials.
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
        "filters": {"with_traceback": {"()": CallbackFilter, "callback": lambda record: record.exc_info is not None}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {
            "django.server": {"level": "WARNING"},
            # Only tracebacks: the access log (byteor_cloud.api.system.log_request) already lists failed requests.
            "django.request": {"level": "ERROR", "filters": ["with_traceback"]},
            "procrastinate": {"level": "WARNING"},
            # At INFO, the client of the blob store logs where it found its credentials.
            "botocore": {"level": "WARNING"},
            # At INFO, the connection pool logs every use of a connection.
            "psycopg": {"level": "WARNING"},
            "psycopg.pool": {"level": "WARNING"},
            # gunicorn's loggers do not propagate to the root logger, so they need the handler themselves.
            "gunicorn.error": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        },
    }
