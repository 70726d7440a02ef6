"""What happens to a server in trouble: what its operator does, and what befalls its engine."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from service.process.watched_threads import ENGINE_LOST
from tests.reliability.chaos_clients import MANNERS, Client
from tests.reliability.chaos_verdict import World
from tests.reliability.mortal_server import Window

ADMIN_KEY = "an-admin-of-the-chaos"
HANG_EXIT_S = 5.0  # after which a server gives its engine up; set by whoever starts it
_BURST = 150  # requests at once, more than there are places
_NO_FAULTS: dict[str, Any] = {
    "hang_at": (), "raise_at": (), "out_of_memory_at": (), "not_finite": (), "largest_batch": None,
}  # fmt: skip

Event = Callable[[], Awaitable[None]]


class Events:
    """Draws events from a seed; each kind comes once before any comes twice."""

    def __init__(self, world: World, keys_file: Path, seed: int, pause_s: float) -> None:
        """Make the events of a world, with pauses of so many seconds in the mean between them."""
        self.happened: Counter[str] = Counter()
        self._world = world
        self._server = world.server
        self._keys_file = keys_file
        self._seed = seed
        self._pause_s = pause_s
        self._dice = random.Random(f"events of {seed}")
        self._keys_made = 0

    def deadly(self) -> list[Event]:
        """After which another server runs."""
        return [self.kill, self.restart, self.lose_engine]

    def harmless(self) -> list[Event]:
        """Which a server survives."""
        return [
            self.reload_by_signal, self.reload_by_request, self.rotate_keys, self.block_log, self.burst,
            self.idle_connections, self.stall, self.stall_beyond_the_deadline, self.raise_errors,
            self.run_out_of_memory, self.run_out_of_memory_for_one, self.compute_nonsense,
        ]  # fmt: skip

    async def run(self, seconds: float) -> None:
        """Let events happen for so long, and until each has happened. In the last fifth nothing deadly does, so that
        what is kept at the end is what a server keeps that was reloaded, not restarted."""
        begin = time.monotonic()
        everything = self.deadly() + self.harmless()
        self._dice.shuffle(everything)
        for event in everything:
            await self._let_happen(event)
        while (passed := time.monotonic() - begin) < seconds:
            choice = self.harmless() + (self.deadly() if passed < 0.8 * seconds else [])
            await self._let_happen(self._dice.choice(choice))

    async def _let_happen(self, event: Event) -> None:
        await asyncio.sleep(self._pause_s * min(6.0, self._dice.expovariate(1.0)))
        await event()
        self.happened[event.__name__] += 1

    async def kill(self) -> None:
        """SIGKILL amid everything."""
        await asyncio.to_thread(self._server.replace, signal.SIGKILL)

    async def restart(self) -> None:
        """SIGTERM: it drains, and ends well."""
        code = await asyncio.to_thread(self._server.replace, signal.SIGTERM)
        if code != 0:
            self._world.violations.append(f"exit code {code} after SIGTERM")

    async def lose_engine(self) -> None:
        """The engine hangs until the server gives it up, and ends."""
        with self._faulty(), self._server.dying():
            await self._script(hang_at=[1], hang_s=600)
            code = await asyncio.to_thread(self._server.replace, None)
        if code != ENGINE_LOST:
            self._world.violations.append(f"exit code {code} after the engine was lost")

    async def reload_by_signal(self) -> None:
        """SIGHUP."""
        self._server.now.signal(signal.SIGHUP)

    async def reload_by_request(self) -> None:
        """POST /model/reload, while another reload may be running."""
        headers = {"X-API-Key": ADMIN_KEY}
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.post(f"{self._server.now.url}/model/reload", headers=headers)
        if answer.status_code not in (200, 409, 503):
            self._world.violations.append(f"a reload was answered with {answer.status_code}: {answer.text}")

    async def rotate_keys(self) -> None:
        """A new key is added, clients change to it, the old one is taken out, and lets nobody in any more."""
        keys, old = self._world.keys, self._world.keys.valid
        self._keys_made += 1
        new = f"key-number-{self._keys_made}-of-{self._seed}-chaos"
        self._keys_file.write_text(f"{old}\n{new}\n")
        await self._until_key(new, accepted=True)
        rotation = Window(time.monotonic())
        keys.rotations.append(rotation)
        keys.valid = new
        await asyncio.sleep(0.5)
        self._keys_file.write_text(f"{new}\n")
        await self._until_key(old, accepted=False)
        rotation.end = time.monotonic()

    async def block_log(self) -> None:
        """Nobody reads the log for two seconds."""
        reader = self._server.log_reader
        reader.reading.clear()
        asyncio.get_running_loop().call_later(2, reader.reading.set)

    async def burst(self) -> None:
        """Many at once."""
        self._keys_made += 1
        clients = [Client(self._world, 1000 * self._keys_made + number, self._seed) for number in range(_BURST)]
        once = next(manner for manner in MANNERS if manner.name == "asks once")
        await asyncio.gather(*(client.ask(self._dice.choice(self._world.asks), once) for client in clients))

    async def idle_connections(self) -> None:
        """Clients that connect, and say nothing."""
        opened = await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", self._server.port) for _ in range(50)), return_exceptions=True
        )
        await asyncio.sleep(0.3)
        for connection in opened:
            if not isinstance(connection, BaseException):
                connection[1].transport.abort()

    async def stall(self) -> None:
        """The engine hangs for less than the deadline."""
        await self._faults(self._dice.uniform(0.2, 1.0), hang_at=[1], hang_s=600)

    async def stall_beyond_the_deadline(self) -> None:
        """The engine hangs for longer."""
        await self._faults(3.0, hang_at=[1], hang_s=600)

    async def raise_errors(self) -> None:
        """Batches fail; images may, too, when they are tried again alone."""
        batches = self._dice.choice([[1], [1, 2, 3], [1, 3, 5, 7], list(range(1, 30))])
        await self._faults(self._dice.uniform(0.2, 1.0), raise_at=batches)

    async def run_out_of_memory(self) -> None:
        """Larger batches do not fit for a while."""
        await self._faults(self._dice.uniform(0.2, 2.0), largest_batch=self._dice.choice([1, 2, 3]))

    async def run_out_of_memory_for_one(self) -> None:
        """Nothing fits, until the engine is opened again, and beyond."""
        await self._faults(0.5, out_of_memory_at=list(range(1, self._dice.choice([2, 4, 12]))))

    async def compute_nonsense(self) -> None:
        """Some pictures are answered with NaN."""
        await self._faults(self._dice.uniform(0.2, 1.0), not_finite=[ask.identity for ask in self._world.asks[:4]])

    async def _faults(self, seconds: float, **changes: Any) -> None:
        with self._faulty():
            before = dict.fromkeys(("hang_at", "raise_at", "out_of_memory_at", "not_finite"), ()) | {
                "largest_batch": None
            }
            await self._script(**changes)
            await asyncio.sleep(seconds)
            await self._script(**before)

    @contextmanager
    def _faulty(self) -> Iterator[None]:
        fault = Window(time.monotonic())
        self._world.engine_faults.append(fault)
        yield
        fault.end = time.monotonic()

    async def _script(self, **changes: Any) -> None:
        await asyncio.to_thread(self._server.now.script, **changes)

    async def _until_key(self, key: str, *, accepted: bool) -> None:
        """Wait until a key is valid, or no longer is; the server looks at the file once a second."""
        async with httpx.AsyncClient(timeout=60) as client:
            while True:
                with suppress(httpx.TransportError):
                    answer = await client.get(f"{self._server.now.url}/model", headers={"X-API-Key": key})
                    if (answer.status_code != 401) == accepted:
                        return
                await asyncio.sleep(0.1)
