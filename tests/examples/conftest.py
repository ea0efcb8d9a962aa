"""What the tests of the examples share: the examples, as modules and as programs."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def load_example() -> Iterator[Callable[[str], ModuleType]]:
    """Imports an example by name; skips the test where a library it shows is not installed."""
    loaded: list[str] = []

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # where dataclasses look their annotations up
        loaded.append(name)
        try:
            spec.loader.exec_module(module)
        except ModuleNotFoundError as error:
            pytest.skip(f"pip install 'ringcast[examples]' for this test: {error}")
        return module

    yield load
    for name in loaded:
        del sys.modules[name]


@pytest.fixture
def start_example() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts an example as a program of its own, with warnings as errors; ends it with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def run_example(start_example: Callable[..., subprocess.Popen[str]], deadline: float) -> Callable[..., list[str]]:
    """Runs an example as a program to its end, which must be a good one, and gives the lines that it prints."""

    def run(name: str, *arguments: str, **environment: str) -> list[str]:
        process = start_example(name, *arguments, **environment)
        output, errors = process.communicate(timeout=2 * deadline)
        assert (process.returncode, errors) == (0, "")
        return output.splitlines()

    return run
