"""Tests of log lines: their format, and the removal of credentials from them."""

from __future__ import annotations

import json
import logging
import logging.config
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
import structlog
from django.conf import settings

from apps.tenancy.credentials import Family, generate, generate_device_code, generate_link
from apps.tenancy.services.webhooks import signing
from byteor_cloud import logs

SECRETS = [generate_link().text, generate_device_code().text, *(generate(family).text for family in Family)]
WEBHOOK = signing.text(b"\xfb\xff\xbf" * 10 + b"\xfb\xff")
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@pytest.fixture
def written(request: pytest.FixtureRequest) -> Iterator[StringIO]:
    """Collect log lines in the format given by the parameter."""
    stream = StringIO()
    configuration = logs.logging_settings(request.param)
    configuration["handlers"]["stderr"]["stream"] = stream
    logging.config.dictConfig(configuration)
    yield stream
    logging.config.dictConfig(settings.LOGGING)


in_json = pytest.mark.parametrize("written", ["json"], indirect=True)
in_both = pytest.mark.parametrize("written", ["json", "console"], indirect=True)


@in_json
def test_application_and_library_lines_share_common_fields(written: StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger("ours").warning("it_happened", count=3)
        logging.getLogger("theirs").warning("it happened %d times", 3)

    first, second = (json.loads(line) for line in written.getvalue().splitlines())
    assert first.pop("timestamp") <= second.pop("timestamp")
    common: dict[str, Any] = {"level": "warning", "request_id": "r-1"}
    assert first == {"event": "it_happened", "count": 3, "logger": "ours"} | common
    assert second == {"event": "it happened 3 times", "logger": "theirs"} | common


@in_both
@pytest.mark.parametrize("secret", [*SECRETS, WEBHOOK, TOKEN], ids=lambda secret: secret[:7])
def test_secrets_are_removed_from_lines(written: StringIO, secret: str) -> None:
    logger, theirs = structlog.get_logger("ours"), logging.getLogger("theirs")
    logger.warning("event", path=f"/auth/link/{secret}", headers={"Authorization": f"Bearer {secret}"})
    logger.warning(f"event {secret}")
    theirs.warning("Forbidden: %s", f"/auth/link/{secret}")
    theirs.warning({"token": secret})
    try:
        raise ValueError(f"no good: {secret}")
    except ValueError:
        theirs.exception("trouble")
        logger.exception("trouble", given=[secret])

    text = written.getvalue()
    assert secret not in text
    assert secret[12:] not in text
    assert text.count("…") == 8
    assert text.count("ValueError: no good: ") == 2


@in_both
def test_texts_that_are_not_secrets_are_unchanged(written: StringIO) -> None:
    texts = [generate(Family.USER).prefix, "sha256:" + "0" * 64, "01a20e66-0000-7000-8000-000000000000", "eyJ"]

    structlog.get_logger("ours").warning("event", texts=" ".join(texts))

    assert " ".join(texts) in written.getvalue()


@in_both
def test_line_break_in_value_does_not_start_new_line(written: StringIO) -> None:
    """Otherwise, a path with a line break could forge a log line."""
    structlog.get_logger("ours").warning("request", path="/x\n2026-01-01 [info] forged")

    assert written.getvalue().count("\n") == 1


@in_json
def test_access_log_writes_info_lines_but_noisy_libraries_do_not(written: StringIO) -> None:
    for name in ("byteor.access", "django.request", "procrastinate.worker", "psycopg.pool", "gunicorn.error"):
        logger = logging.getLogger(name)
        logger.info("info of %s", name)
        logger.error("error of %s", name)

    assert [json.loads(line)["event"] for line in written.getvalue().splitlines()] == [
        "info of byteor.access",
        "error of byteor.access",
        # django.request logs only tracebacks, because the access log contains every failed request.
        "error of procrastinate.worker",
        "error of psycopg.pool",
        "error of gunicorn.error",
    ]
