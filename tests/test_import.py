"""What importing Ringcast costs and gives: nothing slow that its user has not asked for, and all that it lists."""

import subprocess
from collections.abc import Callable


def test_import_leaves_slow_modules_alone(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    program = """
import sys
import threading
before = set(sys.modules)
from ringcast import Dispatcher
print(*sorted({"asyncio", "dataclasses", "inspect", "logging"} & (set(sys.modules) - before)))
"""
    result = run_python(program)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_everything_in_all_can_be_had(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = run_python("from ringcast import *; print(Stream.__name__, DispatcherStats.__name__, TopicStats.__name__)")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["Stream", "DispatcherStats", "TopicStats"]
