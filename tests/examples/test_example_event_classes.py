"""examples/event_classes.py: events of pydantic, msgspec, attrs and the standard library."""

import pytest

from ringcast import type_id


@pytest.fixture
def example(load_example):
    return load_example("event_classes")


def test_each_event_arrives_at_the_subscriber_of_its_class(example):
    arrived = example.deliver(example.EVENTS)
    assert len(arrived) == 10
    for event, (event_class, events) in zip(example.EVENTS, arrived.items(), strict=True):
        assert type(event) is event_class
        assert len(events) == 1
        assert events[0] is event


def test_stated_ids_are_used_and_the_others_are_given(example):
    ids = [type_id(type(event)) for event in example.EVENTS]
    assert ids[5:] == [0x0101, 0x0102, 0x0103, 0x0104, 0x0105]
    assert len({*ids}) == 10


def test_a_stated_id_is_no_field(example):
    trades = example.EVENTS[5:]
    assert [(trade.symbol, trade.volume) for trade in trades] == [("ABC", 200)] * 5
    assert not any("__event_type__" in repr(trade) for trade in trades)


def test_several_events_of_one_class_arrive_in_order(example):
    ticks = tuple(example.MsgspecTick("ABC", float(price)) for price in range(100))
    assert example.deliver(ticks) == {example.MsgspecTick: list(ticks)}


@pytest.mark.usefixtures("example")
def test_as_a_program(run_example):
    lines = run_example("event_classes")
    assert len(lines) == 10
    assert lines[5].split(maxsplit=3)[:3] == ["DataclassTrade", "0x00000101", "stated"]
