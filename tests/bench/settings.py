"""The real settings, with the stock-DRF heartbeat served beside the real one."""

from byteor_cloud.settings import *  # noqa: F403

ROOT_URLCONF = "tests.bench.urls"
