"""What is promised on free-threaded Python only."""

import os
import sys
import sysconfig

import pytest

pytestmark = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED") or "PYTHON_GIL" in os.environ,  # which decides, not the modules
    reason="for free-threaded Python whose GIL is not set by PYTHON_GIL",
)

IMPORTS = """
import importlib, pkgutil, sys
import ringcast
for module in pkgutil.iter_modules(ringcast.__path__, "ringcast."):
    if module.name != "ringcast.__main__":
        importlib.import_module(module.name)
print(sys._is_gil_enabled())
"""


def test_importing_any_module_leaves_the_gil_off(run_python):
    result = run_python(IMPORTS)
    assert (result.stdout, result.stderr) == ("False\n", "")


def test_the_gil_is_off_in_these_tests():
    assert not sys._is_gil_enabled()
