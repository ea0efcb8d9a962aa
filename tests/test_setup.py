"""setup.py: whose flags decide, what its switches are called, and where it refuses to build."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "setup.py"

pytestmark = [
    pytest.mark.skipif(not SCRIPT.exists(), reason="in a checkout or an unpacked sdist only"),
    pytest.mark.thread_unsafe(reason="each starts a process: as good in one thread"),
]
unix = pytest.mark.skipif(sys.platform == "win32", reason="MSVC has other flags, and takes the builder's by itself")

# setup.py without translating and building: what the extensions would be built with
SHOW = """
import json, runpy, sys
import Cython.Build, setuptools
Cython.Build.cythonize = lambda extensions, **directives: extensions
setuptools.setup = lambda ext_modules: print(json.dumps(
    {module.name: [module.extra_compile_args, module.define_macros, module.undef_macros] for module in ext_modules}
))
runpy.run_path("setup.py")
"""


def run(program, **variables):
    ours = ("CFLAGS", "RINGCAST_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=SCRIPT.parent, env=environ | variables, capture_output=True, text=True
    )


def built_with(**variables):
    """The compiler's arguments, and the macros that are defined and undefined, of the core."""
    done = run(SHOW, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["ringcast._core"]


def flags(**variables):
    return built_with(**variables)[0]


@unix
@pytest.mark.parametrize("given", ["-O1", "-Os -pipe", "-pipe -Ofast", "-O"])
def test_the_builders_optimisation_is_not_followed_by_one_of_ours(given):
    assert not [flag for flag in flags(CFLAGS=given) if flag.startswith("-O")]


@unix
@pytest.mark.parametrize("given", ["", "-pipe", "-DONE=-O1", "'-DTWO= -O1'"])
def test_without_one_it_is_ours(given):
    assert [flag for flag in flags(CFLAGS=given) if flag.startswith("-O")] == ["-O3"]


@unix
@pytest.mark.parametrize("given", ["", "-g0", "-O2 -g1"])
def test_debug_information_is_the_builders_matter(given):
    assert not [flag for flag in flags(CFLAGS=given) if flag.startswith("-g")]


@unix
@pytest.mark.parametrize("given", ["-ffile-prefix-map=/build=.", "-g -fdebug-prefix-map=/build=/usr/src"])
def test_the_builders_names_of_folders_are_not_followed_by_ours(given):
    assert not [flag for flag in flags(CFLAGS=given) if "prefix-map" in flag]


@unix
def test_without_them_the_folder_of_the_build_is_named_nowhere():
    assert f"-ffile-prefix-map={SCRIPT.parent}=." in flags()


@unix
@pytest.mark.parametrize("switch", ["RINGCAST_DEBUG", "RINGCAST_COVERAGE"])
def test_a_build_that_is_looked_into_is_not_optimised_whatever_the_builder_says(switch):
    given = flags(CFLAGS="-O2 -g0", **{switch: "1"})
    assert "-O0" in given
    assert "-g" in given


@unix
def test_switches_have_their_effect_by_their_own_names():
    assert "-Werror" in flags(RINGCAST_WERROR="1")
    assert "-fsanitize=thread" in flags(RINGCAST_SANITIZE="thread")
    assert "--coverage" in flags(RINGCAST_COVERAGE="1")
    assert "-fvisibility=hidden" not in flags(RINGCAST_FAIL_ALLOC="1")
    assert ["RC_FAIL_ALLOC", None] in built_with(RINGCAST_FAIL_ALLOC="1")[1]
    assert ["RC_DELAYS", None] in built_with(RINGCAST_DELAYS="1")[1]
    assert built_with(RINGCAST_DEBUG="1")[2] == ["NDEBUG"]


@pytest.mark.parametrize("name", ["DEBUG", "SANITIZE", "FAIL_ALLOC", "DELAYS", "WERROR", "COVERAGE"])
def test_a_variable_of_another_tool_changes_nothing(name):
    assert built_with(**{name: "1"}) == built_with(**{f"RINGCAST_{name}": "0"}) == built_with()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("import sys; sys.implementation.name = 'pypy'", "Ringcast needs CPython: * this is pypy."),
        ("import sys; sys.version_info = (3, 10, 9); sys.version = '3.10.9 (main)'", "* 3.11 or newer, * is 3.10.9."),
        ("import struct; struct.calcsize = {'P': 4}.get", "Ringcast needs a 64-bit Python: * a pointer has 32 bits."),
    ],
    ids=["PyPy", "Python 3.10", "32 bits"],
)
def test_where_it_cannot_be_built_one_line_says_why(where, said):
    done = run(f"{where}; import runpy; runpy.run_path('setup.py')")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    parts = iter(said.split("*"))
    assert line.startswith(next(parts))
    assert all(part in line for part in parts)


def test_an_old_python_can_read_it_as_far_as_the_refusal():
    ast.parse(SCRIPT.read_text("utf-8"), feature_version=(3, 8))
