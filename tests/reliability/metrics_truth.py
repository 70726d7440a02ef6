"""Whether the metrics say what the clients saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from service.process.metrics import TIMED
from tests.processes import until
from tests.server_process import ServerProcess, total

ANSWERED = 'detr_requests_total{endpoint="'


def assert_metrics_tell_the_truth(
    server: ServerProcess, seen: Mapping[tuple[str, int], int], *, images: int | None = None
) -> None:
    """Counters are exactly what the clients saw, and the gauges are back at nothing (row M5).

    Args:
        server: one that nobody asks at the moment.
        seen: (endpoint, status) to the number of answers, since the server started; other endpoints than those in
            it are not compared, so that health and metrics may be asked meanwhile.
        images: served by the engine, all tasks together; by default what a scripted server's engine says.
    """
    samples = server.samples()

    def is_quiet() -> bool:
        samples.update(server.samples())
        return samples["detr_requests_in_flight"] == 1 and samples["detr_queue_depth"] == 0  # the scrape itself

    until(is_quiet)
    endpoints = {endpoint for endpoint, _ in seen}
    counted: Counter[tuple[str, int]] = Counter()
    for name, value in samples.items():
        if name.startswith(ANSWERED):
            endpoint, _, rest = name.removeprefix(ANSWERED).partition('",status="')
            if endpoint in endpoints:
                counted[endpoint, int(rest.removesuffix('"}'))] = int(value)
    assert +counted == +Counter(seen)
    assert total(samples, "detr_batch_size_sum") == (server.script()["images"] if images is None else images)
    for endpoint in endpoints & set(TIMED):
        answers = sum(count for (name, _), count in counted.items() if name == endpoint)
        assert samples[f'detr_request_duration_seconds_count{{endpoint="{endpoint}"}}'] == answers
