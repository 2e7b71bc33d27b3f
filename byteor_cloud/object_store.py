"""The errors of the S3 client, imported late: each process would otherwise spend a tenth of its start on them."""

from __future__ import annotations


def object_store_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that the S3 client raises. Call this only to find out what an error is."""
    from boto3.exceptions import Boto3Error  # noqa: PLC0415 - see above
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    return Boto3Error, BotoCoreError, ClientError
