"""A server in trouble, with a seed: killed, stalled, reloaded, left and flooded under load, and what became of it.

    python -m tests.reliability.chaos --seconds 600 --seed 1
    python -m tests.reliability.chaos --seconds 120 --device openvino --precision bfloat16

The engine is scripted or, where a device is named, a network's with scripted faults. Prints what happened as JSON, and
exits with 1 if a promise was broken:

- every request that was sent whole got exactly one answer or, from a server that was killed, a broken connection;
- every success is the answer of a quiet server to that picture: byte for byte where the engine is scripted, and of a
  network to the digits that are promised of its engine and precision (`tests/promised_digits.py`);
- every refusal is one that something explains, and says when to try again;
- no request is logged twice, and nothing else than the engine's scripted faults is logged as an error;
- at the end nothing is in flight, and memory, descriptors and threads are what they were (but for those that engines of
  networks keep).

The seed decides what happens and what is asked, in which order; how the two meet is the machine's doing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.processes import until
from tests.promised_digits import PROMISED, Digits
from tests.reliability.chaos_clients import Client
from tests.reliability.chaos_events import ADMIN_KEY, HANG_EXIT_S, Events
from tests.reliability.chaos_subject import Subject, network_subject, scripted_subject
from tests.reliability.chaos_verdict import Ask, Comparison, Keys, Manner, World
from tests.reliability.growth import Growth, Usage, usage_at_rest
from tests.reliability.mortal_server import MortalServer
from tests.server_process import ServerProcess

CLIENTS = 24
_FIRST_KEY = "the-first-key-of-all"
_SETTINGS = {
    "request-timeout-ms": 2500, "engine-stall-ms": 1500, "engine-hang-exit-ms": round(1000 * HANG_EXIT_S),
    "header-timeout-ms": 2000, "body-timeout-ms": 3000, "keep-alive-timeout-s": 60, "max-queue-size": 32,
    "max-pixels": 4_000_000,
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What happened, and what was wrong with it."""

    seconds: float
    seed: int
    events: dict[str, int]
    outcomes: dict[str, int]
    exit_codes: dict[int, int]
    before: Usage
    after: Usage
    comparison: Comparison
    violations: list[str]

    @property
    def right_answers(self) -> int:
        """Successes, each of them compared."""
        return self.outcomes.get("200", 0)


def run(seconds: float, seed: int, folder: Path, subject: Subject | None = None) -> Result:
    """Let chaos reign for so long, and until everything has happened once; files go to the folder. Without a subject
    the engine is scripted.
    """
    subject = subject or scripted_subject(folder)
    keys_file = folder / "keys"
    keys_file.write_text(_FIRST_KEY + "\n")
    (folder / "admin-keys").write_text(ADMIN_KEY + "\n")
    files = ("--api-keys-file", str(keys_file), "--admin-keys-file", str(folder / "admin-keys"))
    settings = [part for name, value in _SETTINGS.items() for part in (f"--{name}", str(value))]
    server = MortalServer(subject.artifact, folder, (*settings, *files, *subject.options), subject.script)
    with _running(server):
        digits = None if subject.is_scripted else promised(server.now)
        world = World(server, Keys(_FIRST_KEY), quiet_answers(server.now, subject), Comparison(digits))
        asyncio.run(_warm_up(world, seed))
        before = usage_at_rest(server.now)
        events = Events(world, keys_file, seed, subject.pause_s)
        asyncio.run(_reign(world, events, seconds, seed))
        asyncio.run(_warm_up(world, seed + 1))
        after = usage_at_rest(server.now)
        violations = world.violations + faults_at_the_end(world)
        if subject.is_scripted:
            violations += Growth(before, after, 0, 0.0).faults()
    violations += [f"logged: {line}" for line in server.wrong_lines]
    violations += [f"logged twice: {name}" for name in server.repeated_ids]
    return Result(
        seconds, seed, dict(events.happened), dict(world.outcomes), dict(server.exit_codes), before, after,
        world.comparison, violations,
    )  # fmt: skip


@contextmanager
def _running(server: MortalServer) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.stop()


def promised(server: ServerProcess) -> Digits:
    """What is promised of the engine and the precision that are served."""
    model = server.get("/model", headers={"X-API-Key": _FIRST_KEY}).raise_for_status().json()
    return PROMISED[model["device"], model["precision"]]


def quiet_answers(server: ServerProcess, subject: Subject) -> list[Ask]:
    """Requests of many kinds, each with the answer that it gets when nobody else asks."""
    sizes = ((64, 64), (200, 150), (90, 64), (640, 480), (1200, 900))
    kinds = [(path, size, image_format) for path in subject.paths for size in sizes for image_format in ("PNG", "WEBP")]
    asks = []
    with httpx.Client(base_url=server.url, headers={"X-API-Key": _FIRST_KEY}, timeout=60) as client:
        for number, (path, size, image_format) in enumerate(kinds):
            identity = 0x102030 * number & 0xFFFFFF
            body, content_type = subject.picture(identity, size, image_format), f"image/{image_format.lower()}"
            answer = client.post(path, content=body, headers={"Content-Type": content_type}).raise_for_status()
            asks.append(Ask(path, body, content_type, 200, answer.content, identity, subject.paths[path]))
        for body, content_type in ((b"nonsense", "image/png"), (asks[0].body[:50], "image/png"), (b"x", "text/plain")):
            refused = client.post("/detect", content=body, headers={"Content-Type": content_type})
            assert refused.is_client_error, refused
            asks.append(Ask("/detect", body, content_type, refused.status_code, refused.content))
    return asks


async def _warm_up(world: World, seed: int) -> None:
    """All there is to ask, all at once, again and again; every thread exists and every cache is full afterwards."""
    manner = Manner("asks once", keep_connection=False)
    clients = [Client(world, -1 - number, seed) for number in range(3 * len(world.asks))]
    for _ in range(3):
        await asyncio.gather(*(client.ask(ask, manner) for client, ask in zip(clients, 3 * [*world.asks], strict=True)))


async def _reign(world: World, events: Events, seconds: float, seed: int) -> None:
    async def happen() -> None:
        try:
            await events.run(seconds)
        finally:
            world.is_over = True

    async with asyncio.TaskGroup() as group:
        group.create_task(happen())
        for number in range(CLIENTS):
            group.create_task(Client(world, number, seed).live())


def faults_at_the_end(world: World) -> list[str]:
    """What the last server still has under way, and what its log lacks."""
    server, samples, found = world.server, _samples(world), list[str]()
    for gauge, value in {"detr_queue_depth": 0, "detr_requests_in_flight": 1, "detr_engine_stalled": 0}.items():
        if samples[gauge] != value:
            found.append(f"{gauge} is {samples[gauge]:g}")
    if (status := server.now.status("/health/ready")) != 200:
        found.append(f"ready answers {status}")
    dropped, logged = samples["detr_log_lines_dropped_total"], server.log_reader.ids
    answered = [name for name, generation in world.answered.items() if generation == server.generation]

    def missing() -> int:
        return sum(name not in logged for name in answered)

    with suppress(AssertionError):  # it may be told too late, and then is missing
        until(lambda: missing() <= dropped, timeout_s=10)
    if missing() > dropped:
        found.append(f"{missing()} requests are not in the log, and {dropped:g} lines were dropped")
    return found


def _samples(world: World) -> dict[str, float]:
    """The last server's metrics, which need a key."""
    world.server.now.lonely.headers["X-API-Key"] = world.keys.valid
    return world.server.now.samples()


def main() -> int:
    """Let chaos reign, and tell of it."""
    parser = argparse.ArgumentParser(description="A server in trouble, with a seed.")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep the logs here")
    parser.add_argument("--device", help="serve a network on this device; without, the engine is scripted")
    parser.add_argument("--precision", default="auto", help="of the network, where a device is named")
    parser.add_argument("--model", type=Path, help="of the network; the default is the demo model")
    arguments = parser.parse_args()
    subject = None
    if arguments.device is not None:
        subject = network_subject(arguments.device, arguments.precision, arguments.model)
    with tempfile.TemporaryDirectory() as temporary:
        result = run(arguments.seconds, arguments.seed, arguments.folder or Path(temporary), subject)
    shown: dict[str, Any] = asdict(result) | {"violations": result.violations[:20]}
    print(json.dumps(shown, indent=2, default=str))
    kinds = Counter(text.partition(":")[0] for text in result.violations)
    print(result.comparison.told())
    print(f"{result.right_answers} right answers, {len(result.violations)} violations {dict(kinds) or ''}")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
