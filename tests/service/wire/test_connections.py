"""Which connection has to go when there are too many, for any order of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.process.metrics import Metrics
from service.wire.connections import Connections

MOST = 4
EVENTS = st.lists(
    st.tuples(st.sampled_from(["open", "close", "work", "wait", "read"]), st.integers(0, 30)), max_size=80
)


class FakeConnection:
    """Remembers whether it was closed."""

    def __init__(self) -> None:
        self.is_closed = False
        self.is_working = False
        self.unread = False

    def make_room(self) -> None:
        self.is_closed = True

    def has_unread_answer(self) -> bool:
        return self.unread


class Model:
    """What is expected, in the plainest way: the open connections, in the order in which they last became idle."""

    def __init__(self) -> None:
        self.open: list[FakeConnection] = []

    def who_has_to_go(self) -> FakeConnection | None:
        idle = [one for one in self.open if not one.is_working]
        first = [one for one in idle if not one.unread] + idle
        return first[0] if first and len(self.open) >= MOST else None


@given(EVENTS)
def test_whoever_works_stays_and_whoever_has_waited_longest_goes(events: list[tuple[str, int]]) -> None:
    metrics = Metrics()
    connections, model = Connections(MOST, metrics), Model()
    for event, number in events:
        if event == "open":
            open_one_more(connections, model)
        elif model.open:
            happen(event, model.open[number % len(model.open)], connections, model)
        assert metrics.registry.get_sample_value("detr_connections") == len(model.open) <= MOST


def open_one_more(connections: Connections, model: Model) -> None:
    newcomer, leaving = FakeConnection(), model.who_has_to_go()
    fits = connections.opened(newcomer)
    assert fits == (len(model.open) < MOST or leaving is not None)
    assert [one for one in model.open if one.is_closed] == ([leaving] if leaving else [])
    model.open = [one for one in model.open if not one.is_closed]
    if fits:
        model.open.append(newcomer)
    else:
        connections.closed(newcomer)


def happen(event: str, one: FakeConnection, connections: Connections, model: Model) -> None:
    if event == "close":
        connections.closed(one)
        model.open.remove(one)
    elif event == "work":
        connections.works(one)
        one.is_working = True
    elif event == "wait":
        connections.waits(one)
        if one.is_working:
            model.open.remove(one)
            model.open.append(one)
        one.is_working = False
    else:
        one.unread = not one.unread


def test_one_that_is_closed_is_forgotten_for_good() -> None:
    connections = Connections(1, Metrics())
    first, second = FakeConnection(), FakeConnection()
    connections.opened(first)
    connections.closed(first)
    connections.closed(first)
    connections.waits(first)
    assert connections.opened(second)
    assert not first.is_closed
