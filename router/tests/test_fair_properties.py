"""What holds in every world, whatever comes: the bound on waiting, the books, and that time alone changes nothing."""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import Scenario, play, scenarios

from ringcast_router.config.model import Config, Fair, Group, Model
from ringcast_router.simulation import Costs, Job

CLOSE = 1e-6
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
many = settings(max_examples=100, deadline=None, suppress_health_check=QUIET)


def assert_bounded(world, mishaps=()):
    """Each wait is within its bound; a mishap while it waited may cost one visit more."""
    for visit in world.visits:
        if visit.granted is not None and visit.id in world.bounds:
            bounded, one_more = world.bounds[visit.id]
            met = sum(visit.came <= at <= visit.granted for at, *_ in mishaps)
            assert visit.granted - visit.came <= bounded + met * one_more + CLOSE
    assert not world.left, "somebody waits for ever"


def test_who_waited_before_the_overdue_request_for_another_model_goes_first_however_small_its_batches():
    models = {name: Model(name, concurrency_limit=1) for name in ("a", "b")}
    group = Group(swap=True, exclusive=True, persistent=False, members=("a", "b"))
    fair = Fair(max_wait=2.0, min_residence=0.0, linger=0.0, max_batch=1)
    config = Config(models=models, groups={"g": group}, fair=fair, scheduler="fair")
    jobs = [*(Job(0.0, "a", 1.0, 0) for _ in range(30)), Job(0.0, "b", 1.0, 0), Job(1.0, "a", 1.0, 0)]
    world = play(Scenario(config, jobs, [], Costs(models={"a": (1.0, 0.0), "b": (1.0, 0.0)}), {}, [], []))
    *older, overdue, younger = world.visits
    assert max(visit.granted for visit in older) < overdue.granted == 32.0 < younger.granted
    assert_bounded(world)


@given(scenarios(mishaps=("cancel",)))
@many
def test_fair_bounds_every_wait(scenario):
    assert_bounded(play(scenario))


@given(scenarios(mishaps=("cancel", "unload", "crash", "load")))
@many
def test_fair_bounds_every_wait_whatever_becomes_of_the_servers(scenario):
    assert_bounded(play(scenario), [m for m in scenario.mishaps if m[1] != "cancel"])


@given(scenarios(mishaps=("cancel", "unload", "crash", "load", "reload")), st.data())
@many
def test_fair_bounds_every_wait_over_reloads(scenario, data):
    names = sorted(scenario.config.models)

    def reload(config):
        kept = data.draw(st.frozensets(st.sampled_from(names)), label="kept")
        models = {name: replace(model, ttl=model.ttl + 1) for name, model in config.models.items()}
        return replace(config, models=models), kept

    assert_bounded(play(scenario, reload=reload), [m for m in scenario.mishaps if m[1] != "cancel"])


@given(scenarios(scheduler="fifo", mishaps=("cancel", "unload", "crash", "load", "reload")), st.data())
@many
def test_fifo_keeps_its_books_and_serves_all(scenario, data):
    names = sorted(scenario.config.models)

    def reload(config):
        return config, data.draw(st.frozensets(st.sampled_from(names)), label="kept")

    world = play(scenario, reload=reload)
    assert not world.left, "somebody waits for ever"
