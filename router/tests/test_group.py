"""The planner `group`."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import configs

from ringcast_router.config import loads
from ringcast_router.config.model import Config, Group, Model
from ringcast_router.planning import View, make_planner

CASES = [json.loads(x) for x in (Path(__file__).parent / "cases" / "evict_groups.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("part", range(10))
def test_recorded_evictions(part):
    assert len(CASES) == 1500
    for case in CASES[part::10]:
        plan = make_planner(loads(case["config"])).plan(case["target"], View(running=tuple(case["running"])))
        assert list(plan.evict) == case["evict"], case
        assert set(plan.rule) == set(plan.evict)


def evicts(groups, target, running):
    config = Config(models={name: Model(name) for name in "abcd"}, groups=groups)
    return make_planner(config).plan(target, View(running=tuple(running)))


@pytest.mark.parametrize(
    ("groups", "target", "running", "evicted"),
    [
        ({"g": Group(members=("a", "b"))}, "a", "b", {"b": "swap in group g"}),
        ({"g": Group(swap=False, members=("a", "b"))}, "a", "b", {}),
        ({"g": Group(members=("a",)), "h": Group(members=("b",))}, "a", "b", {"b": "group g is exclusive"}),
        ({"g": Group(exclusive=False, members=("a",)), "h": Group(members=("b",))}, "a", "b", {}),
        ({"g": Group(members=("a",)), "h": Group(persistent=True, members=("b",))}, "a", "b", {}),
        ({"g": Group(persistent=True, members=("a", "b"))}, "a", "b", {"b": "swap in group g"}),
        ({}, "a", "bc", {"b": "swap in group (default)", "c": "swap in group (default)"}),
        ({"g": Group(exclusive=False, members=("a",))}, "b", "a", {"a": "group (default) is exclusive"}),
        ({}, "a", "a", {}),
    ],
)
def test_rules(groups, target, running, evicted):
    plan = evicts(groups, target, running)
    assert (plan.evict, dict(plan.rule)) == (tuple(evicted), evicted)


def test_exclusive_is_one_way():
    """Loading from an exclusive group evicts the others; loading another beside a running exclusive one does not."""
    groups = {"g": Group(exclusive=True, members=("a",)), "h": Group(exclusive=False, members=("b",))}
    assert evicts(groups, "a", "b").evict == ("b",)
    assert evicts(groups, "b", "a").evict == ()


@given(configs(), st.data())
def test_no_plan_evicts_the_target_or_what_does_not_run(config, data):
    names = sorted(config.models)
    running = tuple(sorted(data.draw(st.frozensets(st.sampled_from(names)))))
    target = data.draw(st.sampled_from(names))
    plan = make_planner(config).plan(target, View(running=running))
    assert set(plan.evict) <= set(running) - {target}
    assert set(plan.rule) == set(plan.evict)
