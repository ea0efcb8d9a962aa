"""A plugin of pytest: puts the drop-in for the package that DROP_IN names in its place, before anything imports it."""

import importlib.util
import os
import sys

import pytest

from ringcast.compat import install

NAME = os.environ["DROP_IN"]
if importlib.util.find_spec(NAME) is not None:
    raise pytest.UsageError(f"{NAME} itself can be imported: the tests could have used it")
MODULE = install(NAME)


def pytest_report_header() -> str:
    """Say what is tested."""
    return f"{NAME}: {MODULE!r}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if the tests have not used it after all."""
    if sys.modules.get(NAME) is not MODULE:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        print(f"\n{NAME} is now {sys.modules.get(NAME)!r}")
