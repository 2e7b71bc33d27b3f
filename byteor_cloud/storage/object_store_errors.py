"""The errors of the S3 client, imported late: each process would otherwise spend a tenth of its start on them."""

from __future__ import annotations


def object_store_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that the S3 client raises. Call this only to find out what an error is."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - see above

    return BotoCoreError, ClientError
