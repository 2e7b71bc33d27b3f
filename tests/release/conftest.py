"""The fixture ``announce``, which prints results, even those of tests that pass or run in a process of xdist."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.register_assert_rewrite("tests.release.checkouts", "tests.release.rolling_load")

_KEY = "printed"


@pytest.fixture
def announce(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return a function that adds a line to the summary of the whole run."""
    return lambda line: record_property(_KEY, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the announced lines of all tests, and those of fixtures that failed or skipped a test."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if not isinstance(report, pytest.TestReport):
                continue
            if report.when == "call" or (report.when == "setup" and not report.passed):
                for key, line in report.user_properties:
                    if key == _KEY:
                        terminalreporter.write_line(f"{report.nodeid.partition('::')[2]}: {line}")
