"""Builds vwap.pyx: `python setup.py build_ext --inplace` (needs cython, setuptools and a C compiler)."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import ringcast

setup(
    name="vwap",
    ext_modules=cythonize(
        Extension("vwap", ["vwap.pyx"], include_dirs=[ringcast.get_include()]),
        compiler_directives={"language_level": "3", "freethreading_compatible": True},
    ),
)
