"""The extension modules; everything else is in pyproject.toml.

Switches, by environment variable: SANITIZE=address,undefined or thread builds with sanitizers; DEBUG=1 without
optimisation and with the core's assertions; FAIL_ALLOC=1 with allocations that tests can make fail (csrc/rc_memory.h);
DELAYS=1 with delays at the atomic operations (csrc/rc_delay.h); WERROR=1 with warnings as errors; COVERAGE=1 so that
gcov can tell which lines of C and Cython run.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

DEBUG = os.environ.get("DEBUG", "0") != "0"
SANITIZE = os.environ.get("SANITIZE", "0")
FAIL_ALLOC = os.environ.get("FAIL_ALLOC", "0") != "0"
DELAYS = os.environ.get("DELAYS", "0") != "0"
WERROR = os.environ.get("WERROR", "0") != "0"  # not for users: another compiler or Cython may warn of more
COVERAGE = os.environ.get("COVERAGE", "0") != "0"

Options.warning_errors = WERROR


def files(folder: str, pattern: str) -> list[str]:
    return sorted(map(str, Path(folder).glob(pattern)))


if sys.platform == "win32":
    compile_args = ["/std:c11", "/experimental:c11atomics"]
    link_args: list[str] = []
    libraries = ["synchronization"]  # WaitOnAddress
    if WERROR:
        compile_args += ["/WX"]
else:
    compile_args = ["-std=gnu11", "-O0" if DEBUG or COVERAGE else "-O3", "-g"]
    link_args = []
    libraries = []
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
# the drop-in modules: each has a compiled part of its own, which does not need the core
compat = [extension(f"ringcast.compat.{Path(path).stem}", path) for path in files("src/ringcast/compat", "*.pyx")]

setup(
    ext_modules=cythonize(
        [core, *compat],
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
