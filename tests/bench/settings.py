"""The ordinary settings, with the additional views of ``tests.bench.urls`` and the test client's host name."""

from byteor_cloud.settings import *  # noqa: F403

ROOT_URLCONF = "tests.bench.urls"
ALLOWED_HOSTS = [*ALLOWED_HOSTS, "testserver"]  # noqa: F405  some benchmarks call views without a server
WITHOUT_SERIES = "BYTEOR_BENCH_WITHOUT_SERIES"
