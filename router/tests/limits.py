"""How long the tests wait."""

import os

DEADLINE = float(os.environ.get("TEST_DEADLINE", "20"))
"""Seconds after which a wait has failed. Far more than any wait needs; loaded machines need more."""
