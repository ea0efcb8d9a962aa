"""The extension modules; everything else is in pyproject.toml.

CC, CFLAGS, CPPFLAGS and LDFLAGS of the environment are the builder's. Setuptools puts them before what is added here,
so nothing is added that would undo one of them: see `unless_given`. (MSVC takes the builder's from CL and _CL_.)

Switches, by environment variable: RINGCAST_SANITIZE=address,undefined or thread builds with sanitizers;
RINGCAST_DEBUG=1 without optimisation and with the core's assertions; RINGCAST_FAIL_ALLOC=1 with allocations that tests
can make fail (csrc/rc_memory.h); RINGCAST_DELAYS=1 with delays at the atomic operations (csrc/rc_delay.h);
RINGCAST_WERROR=1 with warnings as errors; RINGCAST_COVERAGE=1 so that gcov can tell which lines of C and Cython run.
"""

import os
import shlex
import struct
import sys
from pathlib import Path

if sys.implementation.name != "cpython":
    sys.exit(f"Ringcast needs CPython: its core is compiled for that alone, and this is {sys.implementation.name}.")
if sys.version_info < (3, 11):  # noqa: UP036 - pip looks only after this has run
    sys.exit(f"Ringcast needs Python 3.11 or newer, and this is {sys.version.split()[0]}.")
if (bits := 8 * struct.calcsize("P")) != 64:
    sys.exit(f"Ringcast needs a 64-bit Python: its core counts in 64-bit words, and here a pointer has {bits} bits.")

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup


def switch(name: str) -> bool:
    """Whether a switch is on."""
    return os.environ.get(f"RINGCAST_{name}", "0") != "0"


DEBUG = switch("DEBUG")
SANITIZE = os.environ.get("RINGCAST_SANITIZE", "0")
FAIL_ALLOC = switch("FAIL_ALLOC")
DELAYS = switch("DELAYS")
WERROR = switch("WERROR")  # not for users: another compiler or Cython may warn of more
COVERAGE = switch("COVERAGE")

Options.warning_errors = WERROR


def files(folder: str, pattern: str) -> list[str]:
    return sorted(map(str, Path(folder).glob(pattern)))


def unless_given(flag: str, *kinds: str) -> list[str]:
    """`flag`, where CFLAGS of the environment has none that begins with one of `kinds`."""
    given = shlex.split(os.environ.get("CFLAGS", ""))
    return [] if any(word.startswith(kinds) for word in given) else [flag]


if sys.platform == "win32":
    compile_args = ["/std:c11", "/experimental:c11atomics"]
    link_args: list[str] = []
    libraries = ["synchronization"]  # WaitOnAddress
    if WERROR:
        compile_args += ["/WX"]
else:
    compile_args = ["-std=gnu11"]
    # what debug information and assertions say of the sources is where they are in the sdist, on whatever machine
    compile_args += unless_given(f"-ffile-prefix-map={Path.cwd()}=.", "-ffile-prefix-map=", "-fdebug-prefix-map=")
    compile_args += ["-O0"] if DEBUG or COVERAGE else unless_given("-O3", "-O")
    link_args = []
    libraries = []
    if DEBUG or COVERAGE or SANITIZE != "0":
        compile_args += ["-g"]
    if not FAIL_ALLOC:  # whose tests call functions of csrc/ by their names
        compile_args += ["-fvisibility=hidden"]
    if WERROR:
        compile_args += ["-Werror"]
    if COVERAGE:
        # without threads' updates of counters being atomic, lines that ran can count as not run, and others below zero
        compile_args += ["--coverage", "-fprofile-update=atomic"]
        link_args += ["--coverage"]
    if SANITIZE != "0":
        # CPython's own flags have -fwrapv, with which UBSan does not look at signed overflow
        compile_args += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-fno-wrapv"]
        link_args += [f"-fsanitize={SANITIZE}"]


def extension(name: str, *sources: str, **keywords: object) -> Extension:
    """An extension module, built with these switches."""
    return Extension(
        name,
        sources=list(sources),
        define_macros=[
            (macro, None)
            for macro, wanted in (("NDEBUG", not DEBUG), ("RC_FAIL_ALLOC", FAIL_ALLOC), ("RC_DELAYS", DELAYS))
            if wanted
        ],
        undef_macros=["NDEBUG"] if DEBUG else [],  # Python's own flags define it
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        **keywords,
    )


core = extension(
    "ringcast._core",
    "src/ringcast/_core.pyx",
    *files("csrc", "*.c"),
    depends=[*files("csrc", "*.h"), *files("src/ringcast/core", "*.pxi")],
    include_dirs=["csrc", "src/ringcast/include"],
    libraries=libraries,
)
# a native handler for those who have no compiler: the benchmark suite and the tests
example = extension("ringcast._add_up", "csrc/example/add_up.c")
# the drop-in modules: each has a compiled part of its own, which does not need the core
compat = [extension(f"ringcast.compat.{Path(path).stem}", path) for path in files("src/ringcast/compat", "*.pyx")]

setup(
    ext_modules=cythonize(
        [core, example, *compat],
        compiler_directives={
            "language_level": "3",
            "binding": False,  # plain C methods are the cheapest to call
            "embedsignature": True,
            "embedsignature.format": "clinic",
            "boundscheck": False,
            "wraparound": False,
            "freethreading_compatible": True,
            # None has no fields, and copies share pointers: either would crash
            "allow_none_for_extension_args": False,
            "auto_pickle": False,
        },
        emit_linenums=COVERAGE,  # else gcov tells of lines of _core.c
    )
)
