"""The recorded configurations: what the original loads from a file, we load; what it refuses, we refuse."""

import json
from pathlib import Path

import pytest

from ringcast_router.config import loads
from ringcast_router.errors import ConfigError

LINES = (Path(__file__).parent / "cases" / "config.jsonl").read_text(encoding="utf-8").splitlines()
CASES = [json.loads(line) for line in LINES]


def test_all_cases_are_there():
    assert len(CASES) == 720
    assert sum("error" in case for case in CASES) == 151


@pytest.mark.parametrize("case", CASES, ids=[f"config-{number}" for number in range(1, len(CASES) + 1)])
def test_recorded_configuration(case):
    if "error" in case:
        with pytest.raises(ConfigError) as caught:
            loads(case["yaml"], environ=case["env"])
        assert caught.value.line > 0
        return
    # What JSON can tell apart is compared: 1 and true are different values, 1 and 1.0 are not.
    ours = loads(case["yaml"], environ=case["env"]).resolved()
    assert ours == case["config"]
    assert _booleans(ours) == _booleans(case["config"])


def _booleans(value, path=()):
    if isinstance(value, dict):
        return {entry for key, member in value.items() for entry in _booleans(member, (*path, key))}
    if isinstance(value, list):
        return {entry for index, member in enumerate(value) for entry in _booleans(member, (*path, index))}
    return {path} if isinstance(value, bool) else set()
