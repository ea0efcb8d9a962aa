"""A plugin of pytest with which a skipped test is a failure, but for those that this Python or build cannot have.

What is missing on the machine and could be there, a library or a tool, may only be missing if MAY_SKIP names it.
"""

from __future__ import annotations

import os
import re

import pytest

CANNOT_BE = [
    "for free-threaded Python whose GIL is not set by PYTHON_GIL",  # the stage free-threaded
    "free-threaded Python 3.13 keeps all classes for ever once a thread was started",
    "the core was not built with RINGCAST_FAIL_ALLOC=1",  # the stage no-memory
    "this Python has no _testcapi",  # the stages with PYTHON, which has it
    "this interpreter never used an address again",
    "Python 3.12 starts no thread at its end: StartError",  # all other stages
    "eager tasks came with Python 3.12",  # the stages python-3.12, gil and free-threaded
    "type parameters came with Python 3.12",  # the stages python-3.12, gil and free-threaded
]


def is_allowed(reason: str, may_skip: list[str]) -> bool:
    """Whether a test may be skipped for that reason."""
    reason = reason.removeprefix("Skipped: ")
    return reason in CANNOT_BE or any(re.search(rf"\b{re.escape(name)}\b", reason) for name in may_skip)


class NoSkips:
    """Collects what was skipped without leave, and fails the session at its end."""

    def __init__(self, may_skip: list[str]) -> None:
        self._may_skip = may_skip
        self._refused: list[str] = []

    def _look(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple | list) and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2]
            if not is_allowed(reason, self._may_skip):
                self._refused.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look at a test."""
        self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Look at a file, which may be skipped as a whole."""
        self._look(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a session in which all else went well."""
        if self._refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which tests were skipped, and why."""
        if self._refused:
            terminalreporter.section("skipped for want of something: install it, or name it in MAY_SKIP", red=True)
            for line in self._refused:
                terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Begin to collect; not under pytest-run-parallel, which skips by design, and what the stage free-threaded runs."""
    if config.getoption("skip_thread_unsafe", False):
        return
    config.pluginmanager.register(NoSkips(os.environ.get("MAY_SKIP", "").split()))
