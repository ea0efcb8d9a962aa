"""What holds in every world, whatever comes: the bound on waiting, the books, and that time alone changes nothing."""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import play, scenarios

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
