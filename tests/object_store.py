"""An S3-compatible server in a separate process, which a test can suspend and resume."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests

from tests.patience import PATIENCE_S, wait_until
from tests.ports import free_port

BUCKET, REGION, ACCESS_KEY, SECRET_KEY = "byteor-artifacts", "eu-central-1", "AKIAEXAMPLE", "the-store-s-secret-key"


class ObjectStore:
    """A server with an empty bucket. ``close`` stops it."""

    def __init__(self) -> None:
        self.endpoint = f"http://127.0.0.1:{free_port()}"
        self._process = subprocess.Popen(
            [Path(sys.executable).with_name("moto_server"), "-p", self.endpoint.rpartition(":")[2]],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until(self._is_up)
            resource = boto3.resource(
                "s3", endpoint_url=self.endpoint, region_name=REGION,
                aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
            )  # fmt: skip
            self.bucket: Any = resource.create_bucket(
                Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
            )
        except BaseException:
            self.close()
            raise

    def _is_up(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(self.endpoint, timeout=PATIENCE_S).ok
        return False

    @property
    def settings(self) -> dict[str, str]:
        """The settings for ``Installation.serve`` of a server that uses the bucket."""
        return {"S3_BUCKET": BUCKET, "S3_ENDPOINT_URL": self.endpoint, "S3_REGION": REGION}

    def suspend(self) -> None:
        """Suspend the process. Its connections stay open, and the kernel accepts new ones, but nothing responds."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def object_store() -> Any:
    """Run a store, and pass its credentials to all servers that the module's tests start."""
    store = ObjectStore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        yield store
    store.close()
