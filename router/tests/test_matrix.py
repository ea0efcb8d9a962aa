"""The planner `matrix`, and its set language."""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringcast_router.config.model import Config, Matrix, Model
from ringcast_router.errors import ConfigError
from ringcast_router.planning import View, make_planner, sets
from ringcast_router.planning.matrix import _distinct as distinct

CASES = [json.loads(x) for x in (Path(__file__).parent / "cases" / "solve_matrix.jsonl").read_text().splitlines()]


def planner(models, written, variables=None, costs=None):
    matrix = Matrix(variables or {}, costs or {}, tuple((name, text) for name, text in written))
    return make_planner(Config(models={name: Model(name) for name in models}, matrix=matrix, router="matrix"))


@pytest.mark.parametrize("part", range(10))
def test_recorded_solutions(part):
    assert len(CASES) == 1800
    for case in CASES[part::10]:
        given_ = case["models"], case["sets"], case["vars"], case["costs"]
        if "error" in case:
            with pytest.raises(ConfigError):
                planner(*given_)
            continue
        plan = planner(*given_).plan(case["target"], View(running=tuple(sorted(case["running"]))))
        assert list(plan.evict) == sorted(case["evict"]), case
        assert (plan.cost, plan.set, list(plan.target_set)) == (case["cost"], case["set"], sorted(case["target_set"]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "column 1: the expression is empty"),
        ("   ", "the expression is empty"),
        ("a &", "column 4: expected a model, '\\+' or '\\(', found the end"),
        ("a b", "column 3: expected '&', '\\|' or the end, found 'b'"),
        ("(a", "column 3: '\\)' is missing for the '\\(' of column 1"),
        ("a)", "column 2: expected '&', '\\|' or the end, found '\\)'"),
        ("+", "column 2: expected the name of a set after '\\+', found the end"),
        ("a & org/b", "column 8: unexpected character '/'"),
        ("a & c", "'c' is neither a var nor a model's id"),
        ("+t", "\\+t refers to a set that is not defined"),
        ("+s", "in a circle: s -> s"),
        ("(" * 5000 + "a" + ")" * 5000, "column 101: brackets are nested more than 100 deep"),
    ],
)
def test_errors_name_the_place(text, said):
    with pytest.raises(ConfigError, match=said) as error:
        planner("ab", [("s", text)])
    assert error.value.key == "matrix.sets.s"


def test_sets_refer_to_one_another_as_deep_as_anybody_needs():
    chain = [("s0", "a"), *((f"s{n}", f"+s{n - 1}") for n in range(1, 5000))]
    assert planner("ab", chain[:100]).plan("a", View()).set == "s0"
    with pytest.raises(ConfigError, match="more than 100 deep"):
        planner("ab", chain[::-1])


def test_a_matrix_needs_a_set():
    with pytest.raises(ConfigError, match="at least one set"):
        planner("ab", [])


@pytest.mark.parametrize(
    ("target", "running", "evict", "chosen"),
    [
        ("b", "a", (), "pair"),
        ("c", "ab", ("a", "b"), "alone"),
        ("d", "ab", ("a",), "other"),
        ("e", "ab", ("a", "b"), ""),  # in no set: it runs alone
        ("a", "ac", (), ""),  # it runs already: nothing goes, though no set allows it
        ("a", "e", ("e",), "pair"),  # what runs in no set goes
    ],
)
def test_what_goes(target, running, evict, chosen):
    solver = planner("abcde", [("pair", "a & b"), ("alone", "c"), ("other", "d & b")])
    plan = solver.plan(target, View(running=tuple(running)))
    assert (plan.evict, plan.set) == (evict, chosen)


def test_of_two_sets_the_cheaper_is_left():
    assert planner("abc", [("s", "a & b | a & c")], costs={"b": 1, "c": 5}).plan("a", View(("b", "c"))).evict == ("b",)
    assert planner("abc", [("s", "a & b | a & c")], costs={"b": 5, "c": 1}).plan("a", View(("b", "c"))).evict == ("c",)
    assert planner("abc", [("s", "a & b | a & c")]).plan("a", View(("b", "c"))).evict == ("c",)  # a tie: the first set


@st.composite
def matrices(draw):
    """A matrix over five models, and the sets that it allows, written out."""
    names = "abcde"
    atom = st.sampled_from(names).map(lambda name: (name, {frozenset(name)}))

    def join(sign, parts):
        text = "(" + f" {sign} ".join(text for text, _ in parts) + ")"
        families = [family for _, family in parts]
        if sign == "|":
            return text, set().union(*families)
        return text, {frozenset().union(*chosen) for chosen in itertools.product(*families)}

    def combine(inner):
        return st.tuples(st.sampled_from("&|"), st.lists(inner, min_size=2, max_size=3)).map(lambda made: join(*made))

    written = draw(st.lists(st.recursive(atom, combine, max_leaves=6), min_size=1, max_size=3))
    costs = draw(st.dictionaries(st.sampled_from(names), st.integers(1, 9)))
    solver = planner(names, [(f"s{n}", text) for n, (text, _) in enumerate(written)], costs=costs)
    return solver, set().union(*(family for _, family in written)), costs


@given(matrices(), st.frozensets(st.sampled_from("abcde")), st.sampled_from("abcde"))
def test_a_plan_leaves_an_allowed_set_and_none_that_does_is_cheaper(made, running, target):
    solver, allowed, costs = made
    running -= {target}
    plan = solver.plan(target, View(running=tuple(sorted(running))))
    left = running - set(plan.evict) | {target}
    holding = [members for members in allowed if target in members]
    if not holding:
        assert left == {target}
        return
    assert any(left <= members for members in holding)
    price = {members: sum(costs.get(model, 1) for model in running - members) for members in holding}
    assert plan.cost == min(price.values())
    assert plan.cost == sum(costs.get(model, 1) for model in plan.evict)


@given(matrices(), st.frozensets(st.sampled_from("abcde")), st.sampled_from("abcde"), st.sampled_from("abcde"))
def test_with_less_running_a_plan_is_never_dearer(made, running, target, gone):
    solver, _, _ = made
    running -= {target}
    all_of_them = solver.plan(target, View(running=tuple(sorted(running))))
    fewer = solver.plan(target, View(running=tuple(sorted(running - {gone}))))
    if all_of_them.set:
        assert fewer.cost <= all_of_them.cost


def test_a_family_of_a_million_sets_is_no_work():
    """Twenty choices of two: the original's first version gave up beyond 1,000 combinations."""
    models = [f"m{n}" for n in range(40)]
    text = " & ".join(f"(m{n} | m{n + 1})" for n in range(0, 40, 2))
    solver = planner(models, [("s", text)])
    began = time.perf_counter()
    plan = solver.plan("m1", View(running=tuple(sorted(models[::2]))))
    assert plan.evict == ("m0",)
    assert time.perf_counter() - began < 0.5


def test_many_choices_between_models_that_all_run_are_little_work():
    """A dozen choices of two make 4,096 sets, none of which contains another."""
    models = [f"m{n}" for n in range(24)]
    pairs = " & ".join(f"(m{n} | m{n + 1})" for n in range(0, 24, 2))
    solver = planner([*models, "t"], [("all", " & ".join(models)), ("pairs", f"{pairs} & t")])
    began = time.process_time()
    plan = solver.plan("t", View(running=tuple(sorted(models))))
    assert plan.evict == tuple(sorted(models[1::2]))
    assert time.process_time() - began < 0.8


@given(st.lists(st.integers(0, 255)), st.integers(0, 255))
def test_a_family_keeps_the_first_of_equal_parts_and_no_part_of_another(family, relevant):
    first = {}
    for chosen in family:
        first.setdefault(chosen & relevant, chosen)
    largest = [part for part in first if not any(part != other and part & other == part for other in first)]
    assert distinct(family, relevant) == [first[part] for part in largest]


def test_the_order_of_sets_is_that_of_the_file_with_references_first():
    resolved = sets.resolve([("one", "a & +two"), ("two", "v"), ("three", "b")], {"v": "b"}, ["a", "b"])
    assert list(resolved) == ["two", "one", "three"]
    assert resolved["two"] == sets.Name("b")


def test_the_pure_part_needs_the_standard_library_alone():
    program = (
        "import sys; before = set(sys.modules)\n"
        "import ringcast_router.planning, ringcast_router.scheduling, ringcast_router.simulation\n"
        "mine = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(mine - sys.stdlib_module_names - {'ringcast_router'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
