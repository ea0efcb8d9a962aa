"""The extension module; everything else is in pyproject.toml.

Switches, by environment variable: SANITIZE=address,undefined or thread builds with sanitizers; DEBUG=1 without
optimisation and with the core's assertions; WERROR=1 fails at a warning of Cython's; FAIL_ALLOC=1 with allocations that
tests can make fail (csrc/rc_memory.h); DELAYS=1 with delays at the atomic operations (csrc/rc_delay.h).
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

DEBUG = os.environ.get("DEBUG", "0") != "0"
SANITIZE = os.environ.get("SANITIZE", "0")
Options.warning_errors = os.environ.get("WERROR", "0") != "0"  # not for users: another Cython may warn of more
FAIL_ALLOC = os.environ.get("FAIL_ALLOC", "0") != "0"
DELAYS = os.environ.get("DELAYS", "0") != "0"

if sys.platform == "win32":
    compile_args = ["/std:c11", "/experimental:c11atomics"]
    link_args: list[str] = []
    libraries = ["synchronization"]  # WaitOnAddress
else:
    compile_args = ["-std=gnu11", "-O0" if DEBUG else "-O3", "-g"]
    link_args = []
    libraries = []
    if SANITIZE != "0":
        # CPython's own flags have -fwrapv, with which UBSan does not look at signed overflow
        compile_args += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-fno-wrapv"]
        link_args += [f"-fsanitize={SANITIZE}"]

setup(
    ext_modules=cythonize(
        Extension(
            "ringcast._core",
            sources=["src/ringcast/_core.pyx", *sorted(map(str, Path("csrc").glob("*.c")))],
            depends=sorted(map(str, [*Path("csrc").glob("*.h"), *Path("src/ringcast/core").glob("*.pxi")])),
            include_dirs=["csrc", "src/ringcast/include"],
            define_macros=[
                (name, None)
                for name, wanted in (("NDEBUG", not DEBUG), ("RC_FAIL_ALLOC", FAIL_ALLOC), ("RC_DELAYS", DELAYS))
                if wanted
            ],
            undef_macros=["NDEBUG"] if DEBUG else [],  # Python's own flags define it
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            libraries=libraries,
        ),
        compiler_directives={
            "language_level": "3",
            "binding": False,  # plain C methods are the cheapest to call
            "embedsignature": True,
            "embedsignature.format": "python",
            "boundscheck": False,
            "wraparound": False,
            "freethreading_compatible": True,
            # None has no fields, and copies share pointers: either would crash
            "allow_none_for_extension_args": False,
            "auto_pickle": False,
        },
    )
)
