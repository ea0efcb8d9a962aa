"""The demo: it runs by itself, and its report can fail."""

import asyncio
import re
import subprocess
import sys

import pytest
from limits import DEADLINE

from ringcast_router.command.demo import BURST, MODELS, Asked, Report, switches


async def test_the_demo_ends_by_itself_and_shows_what_it_measured(no_child_left):
    words = ["-m", "ringcast_router", "demo", "--load", "0.5"]
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=subprocess.PIPE)
    async with asyncio.timeout(2 * DEADLINE):
        out, _ = await process.communicate()
    text = out.decode()
    assert process.returncode == 0, text
    assert "\x1b" not in text  # it does not draw where there is no terminal
    for model in MODELS:
        assert re.search(rf"^ +\d+\.\d s  {model}  ready", text, re.MULTILINE)
        assert re.search(rf"^{model} +\d+ +\d+ +\d+\.\d s +\d+\.\d s +\d+\.\d s$", text, re.MULTILINE)
    assert f"The burst {BURST}: 3 loads" in text
    assert "In the order in which it came: 12 loads" in text
    assert text.endswith("All answers came from the right model.\n")


@pytest.mark.parametrize(("models", "expected"), [("", 0), ("A", 1), ("AAB", 2), ("ABAB", 4), (BURST, 12)])
def test_in_their_order_requests_take_a_load_for_each_change_of_model(models, expected):
    assert switches(models) == expected


def report(burst=BURST, b_after=5.0, loads_of_burst=3):
    asked = [Asked(model, 0.0, 1.0, name) for model, name in zip(BURST, burst, strict=True)]
    other = [Asked("A", 0.0, 1.0, "A"), Asked("B", 0.0, b_after, "B")]
    return Report(2.0, asked, other, {"A": [2.0], "B": [2.0], "C": [2.0]}, loads_of_burst)


@pytest.mark.parametrize(
    ("changes", "fine"),
    [
        ({}, True),
        ({"burst": "ABCABCABCABA"}, False),  # an answer of another model
        ({"b_after": 6.5}, False),  # max_wait 3 s, a request 0.4 s, a load 2 s, and a second to spare
        ({"b_after": 6.3}, True),
        ({"loads_of_burst": 4}, False),
    ],
)
def test_the_demo_fails_where_an_answer_was_wrong_or_a_bound_was_missed(changes, fine):
    assert report(**changes).fine == fine
    wrong = "burst" in changes
    assert ("1 of 14 answers were wrong" in report(**changes).text()) == wrong
