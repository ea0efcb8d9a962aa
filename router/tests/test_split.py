"""Command lines are split as the original splits them."""

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringcast_router.config import split_command
from ringcast_router.errors import ConfigError

LINES = (Path(__file__).parent / "cases" / "split.jsonl").read_text(encoding="utf-8").splitlines()
CASES = [json.loads(line) for line in LINES]


def test_all_cases_are_there():
    assert len(CASES) == 360


@pytest.mark.parametrize("case", CASES, ids=[f"split-{number}" for number in range(1, len(CASES) + 1)])
def test_recorded_command(case):
    if "error" in case:
        with pytest.raises(ConfigError):
            split_command(case["cmd"])
    else:
        assert split_command(case["cmd"]) == case["args"]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0")), min_size=1))
def test_what_shlex_quotes_comes_back(arguments):
    command = ["program", *arguments]
    assert split_command(shlex.join(command)) == command
