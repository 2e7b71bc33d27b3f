"""The ordinary settings, with a plain-DRF heartbeat view in addition to the real one."""

from byteor_cloud.settings import *  # noqa: F403

ROOT_URLCONF = "tests.bench.urls"
