"""The errors of the S3 client. They are imported late, because the import takes a tenth of a process's start time."""

from __future__ import annotations


def object_store_errors() -> tuple[type[Exception], ...]:
    """Return the types of exceptions that the S3 client raises. Call this only to classify an error."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - see above

    return BotoCoreError, ClientError
