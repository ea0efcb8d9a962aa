"""How long the tests wait."""

import os

DEADLINE = float(os.environ.get("TEST_DEADLINE", "15"))
"""Seconds after which a wait has failed. Far more than any of them needs; sanitizers and loaded machines need more."""
