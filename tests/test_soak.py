"""The soak (benchmarks/soak.py): its account balances, and its oracle finds an account that does not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parent.parent / "benchmarks" / "soak.py"
pytestmark = pytest.mark.skipif(not SOAK.exists(), reason="in a checkout only")

RECORDS = [
    "asyncio, batches, records",
    "asyncio, records",
    "direct, records",
    "queued, batches, records",
    "queued, records",
    "stream, batches, records",
    "stream, records",
]
SHAPES = ["asyncio", "asyncio, batches", "direct", "queued", "queued, batches", "stream", "stream, batches"]
WAYS = ["apublish", "from C", "publish", "publish_many, list", "publish_many, generator", "publish_many, records"]


def run_soak(*arguments):
    command = [sys.executable, "-W", "error", SOAK, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_short_soak_balances_and_leaves_out_nothing():
    result = run_soak("--seconds", "2", "--round", "1")
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert "the account balances" in result.stdout
    for shape in [*SHAPES, *RECORDS, "native, records"]:
        subscriptions = re.search(rf"^{shape} +(\d+)", result.stdout, re.MULTILINE)
        assert subscriptions is not None, shape
        assert int(subscriptions[1]) > 0, shape
    (published,) = re.findall(r"^published: (.*)", result.stdout, re.MULTILINE)
    ways = [re.sub(r" [\d,]+$", "", way) for way in published.split("; ")]
    assert set(ways) >= set(WAYS)


@pytest.mark.parametrize(
    ("falsified", "found", "shapes"),
    [
        ("lose", "event 3 of publisher . came next to 1", [*SHAPES, *RECORDS, "native, records"]),
        ("double", "event 2 of publisher . came after 2", [*SHAPES, *RECORDS, "native, records"]),
        ("swap", "event 2 of publisher . came after 3", [*SHAPES, *RECORDS, "native, records"]),
        ("count", "0 filtered, but `where` has said no 1 times", [*SHAPES, *RECORDS, "native, records"]),
        ("invent", r"(\d+) to \1 published, but \d+ accounted for", [*SHAPES, *RECORDS, "native, records"]),
        ("change", r"a \w+ of \d+ bytes has changed while it was kept", RECORDS),
    ],
)
def test_a_falsified_ledger_is_found(falsified, found, shapes):
    # what is falsified has its events from the round itself: however few the publishers come to publish in that time
    result = run_soak("--seconds", "0.1", "--seed", "1", "--break", falsified)
    assert (result.returncode, result.stderr) == (1, ""), result.stdout
    assert "DOES NOT BALANCE" in result.stdout
    for shape in shapes:
        assert re.search(rf"^round 0 \(seed 1\): {shape}, \[.*: {found}$", result.stdout, re.MULTILINE), shape
