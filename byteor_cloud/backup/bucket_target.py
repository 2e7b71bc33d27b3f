"""Backups in a bucket of an S3-compatible store.

The module is imported only if a bucket is used, because the import of boto3 takes a quarter of a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import IO, Any, override
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from byteor_cloud.backup import manifest
from byteor_cloud.backup.errors import BackupError
from byteor_cloud.backup.targets import OWN, Readable, Target

_PART = 32 << 20  # bytes; an upload has at most 10,000 parts, so a dump can have up to 312 GiB
_MISSING = {"NoSuchKey", "404"}
_REASONS = {
    "NoSuchBucket": "the bucket does not exist",
    "AccessDenied": "access denied",
    "403": "access denied",
    "InvalidAccessKeyId": "the access key does not exist",
    "SignatureDoesNotMatch": "the secret access key is wrong",
}


class BucketTarget(Target):
    """A bucket, or the objects with a prefix in it. An object appears only when it is complete."""

    def __init__(self, location: str, *, endpoint_url: str | None, region: str | None) -> None:
        self.location = location
        try:
            parts = urlsplit(location)
        except ValueError:  # malformed brackets
            parts = urlsplit("")
        if not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
            raise BackupError("a bucket must be given as s3://BUCKET or s3://BUCKET/PREFIX")
        self._bucket, prefix = parts.netloc, parts.path.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint_url, self._region = endpoint_url, region

    @cached_property
    def _client(self) -> Any:
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 5},
            connect_timeout=5,
            read_timeout=30,
            max_pool_connections=self.concurrency,
            # Some S3-compatible stores lack the newer checksums. They are unnecessary, since all content is hashed.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return boto3.client("s3", endpoint_url=self._endpoint_url, region_name=self._region, config=config)

    @contextmanager
    def _errors(self, *, is_of_object: bool = False) -> Iterator[None]:
        """Convert the client's errors to BackupError, or to FileNotFoundError for an object that does not exist.

        ``is_of_object`` is true if the block reads one object. Otherwise, 404 means that the address is wrong.
        """
        try:
            yield
        except ClientError as error:
            code = str(error.response["Error"].get("Code", ""))
            if is_of_object and code in _MISSING:
                raise FileNotFoundError(code) from None
            raise BackupError(f"{self.location}: {_REASONS.get(code, f'the store reports {code}')}") from error
        except (Boto3Error, BotoCoreError, HTTPError) as error:
            # The message of this error may contain a signed URL, so only its type is shown.
            raise BackupError(f"{self.location}: the store cannot be used ({type(error).__name__})") from error

    @override
    def prepare(self) -> None:
        with self._errors():
            for page in self._pages("", Delimiter="/"):
                folders = {each["Prefix"].removeprefix(self._prefix) for each in page.get("CommonPrefixes", ())}
                found = folders | {each["Key"].removeprefix(self._prefix) for each in page.get("Contents", ())}
                foreign = sorted(found - {f"{name}/" for name in OWN} - {""})
                if foreign:
                    raise BackupError(
                        f"{self.location} contains other objects, such as {foreign[0]}: use a separate prefix"
                    )

    @override
    def remove_leftovers(self) -> None:
        # The store keeps the parts of an unfinished upload, and charges for them, but does not list them as objects.
        with contextlib.suppress(BackupError), self._errors():  # the permission may be missing
            uploads = self._client.get_paginator("list_multipart_uploads")
            for folder in sorted(OWN):
                for page in uploads.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{folder}/"):
                    for each in page.get("Uploads", ()):
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=each["Key"], UploadId=each["UploadId"]
                        )

    def _pages(self, prefix: str, **options: Any) -> Iterator[Any]:
        paginator = self._client.get_paginator("list_objects_v2")
        yield from paginator.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix, **options)

    @override
    def write(self, path: str, source: Readable) -> None:
        config = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, use_threads=False)
        with self._errors():
            self._client.upload_fileobj(source, self._bucket, self._prefix + path, Config=config)

    @override
    def open(self, path: str) -> IO[bytes]:
        with self._errors(is_of_object=True):
            body: IO[bytes] = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path)["Body"]
            return _Body(body, self)  # type: ignore[return-value]  # it has the methods that readers use

    @override
    def list_blobs(self, folder: str) -> dict[str, int]:
        prefix = f"blobs/sha256/{folder}/"
        with self._errors():
            return {
                each["Key"].removeprefix(self._prefix + prefix): each["Size"]
                for page in self._pages(prefix)
                for each in page.get("Contents", ())
            }

    @override
    def list_names(self) -> list[tuple[str, bool]]:
        names: dict[str, bool] = {}
        with self._errors():
            for page in self._pages("backups/"):
                for each in page.get("Contents", ()):
                    name, _, file = each["Key"].removeprefix(f"{self._prefix}backups/").partition("/")
                    if manifest.is_name(name):
                        names[name] = names.get(name, False) or file == "manifest.json"
        return sorted(names.items())

    @override
    def remove(self, name: str) -> None:
        with self._errors():
            for path in (manifest.manifest_path(name), manifest.blob_list_path(name), manifest.dump_path(name)):
                self._client.delete_object(Bucket=self._bucket, Key=self._prefix + path)


class _Body:
    """The body of a response, whose errors are converted like those of the target."""

    def __init__(self, body: Any, target: BucketTarget) -> None:
        self._body, self._target = body, target

    def read(self, size: int = -1, /) -> bytes:
        with self._target._errors():
            piece: bytes = self._body.read(None if size < 0 else size)
            return piece

    def __iter__(self) -> Iterator[bytes]:
        with self._target._errors():
            yield from self._body.iter_lines(1 << 20, keepends=True)

    def close(self) -> None:
        self._body.close()
