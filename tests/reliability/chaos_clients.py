"""Clients of a server in trouble: patient, slow, gone, nonsensical, each with a dice of its own."""

from __future__ import annotations

import asyncio
import math
import random
import time

from tests.processes import PATIENCE_S
from tests.reliability.chaos_verdict import Answer, Ask, Exchange, Leave, Manner, World, fault_of, outcome_of
from tests.reliability.raw_http import request

_PIECE = 4096  # bytes, of what is read slowly

MANNERS: dict[Manner, int] = {
    Manner("asks and stays"): 40,
    Manner("asks once", keep_connection=False): 20,
    Manner("sends slowly", pieces=5): 5,
    Manner("reads slowly", reads_slowly=True): 5,
    Manner("leaves while uploading", leaves="uploading"): 5,
    Manner("leaves while queued", leaves="queued"): 8,
    Manner("leaves while reading", leaves="reading"): 5,
    Manner("stops amid the request", keep_connection=False, stops_amid=True): 1,
    Manner("has no valid key", has_no_key=True): 3,
}


class Client:
    """Asks, in one manner after another, until the world is over."""

    def __init__(self, world: World, number: int, seed: int) -> None:
        self._world = world
        self._name = f"chaos-{seed}-{number}"
        self._dice = random.Random(self._name)
        self._asked = 0
        self._kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._kept_of = 0  # generation of the server

    async def live(self) -> None:
        """Ask one thing after another."""
        manners, weights = list(MANNERS), list(MANNERS.values())
        while not self._world.is_over:
            await self.ask(self._dice.choice(self._world.asks), self._dice.choices(manners, weights)[0])
        self._let_go()

    async def ask(self, ask: Ask, manner: Manner) -> None:
        """One exchange, and the verdict on it."""
        generation = self._world.server.generation
        exchange = await self._exchange(ask, manner)
        if exchange is None:
            self._world.outcomes[manner.name] += 1
            return
        fault = fault_of(exchange, self._world)
        if fault is not None:
            self._world.violations.append(f"{fault}: {exchange}")
        if exchange.answer is None:
            self._world.outcomes["no answer"] += 1
            await asyncio.sleep(0.02)
        else:
            if not manner.stops_amid and generation == self._world.server.generation:
                self._world.answered[exchange.request_id] = generation
            self._world.outcomes[outcome_of(exchange.answer)] += 1

    async def _exchange(self, ask: Ask, manner: Manner) -> Exchange | None:
        """What was seen; None where the client left before there was anything to see."""
        self._asked += 1
        request_id = f"{self._name}-{self._asked}"
        begin, sent, answer, problem = time.monotonic(), math.inf, None, ""
        try:
            async with asyncio.timeout(PATIENCE_S):
                reader, writer = await self._connection()
                await self._send(writer, self._wire(ask, manner, request_id), manner)
                sent = math.inf if manner.stops_amid else time.monotonic()
                if manner.leaves is not None:
                    await self._leave(reader, manner.leaves)
                    return None
                answer = await read_answer(reader, slowly=manner.reads_slowly)
                if not manner.keep_connection and (rest := await reader.read()):
                    problem = f"more than one answer: {rest[:80]!r}"
        except (OSError, EOFError) as error:
            problem = repr(error)
        except TimeoutError:
            problem = f"no answer within {PATIENCE_S} s"
        if problem or not manner.keep_connection or (answer and answer.headers.get("connection") == "close"):
            self._let_go()
        return Exchange(ask, manner, request_id, begin, sent, time.monotonic(), answer, problem)

    def _wire(self, ask: Ask, manner: Manner, request_id: str) -> bytes:
        headers = {"X-Request-ID": request_id, "X-API-Key": "x" * 20 if manner.has_no_key else self._world.keys.valid}
        if not manner.keep_connection:
            headers["Connection"] = "close"
        return request(ask.path, ask.body, content_type=ask.content_type, headers=headers)

    async def _send(self, writer: asyncio.StreamWriter, wire: bytes, manner: Manner) -> None:
        if manner.stops_amid or manner.leaves == "uploading":
            wire = wire[: self._dice.randrange(1, len(wire))]
        size = -(-len(wire) // manner.pieces)
        for position in range(0, len(wire), size):
            if position:
                await asyncio.sleep(0.04)
            writer.write(wire[position : position + size])
            await writer.drain()

    async def _leave(self, reader: asyncio.StreamReader, leave: Leave) -> None:
        if leave == "queued":
            await asyncio.sleep(self._dice.uniform(0, 0.05))
        elif leave == "reading":
            await reader.read(20)
        self._let_go()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        generation = self._world.server.generation
        if self._kept is None or self._kept_of != generation:
            self._let_go()
            self._kept = await asyncio.open_connection("127.0.0.1", self._world.server.port)
            self._kept_of = generation
        return self._kept

    def _let_go(self) -> None:
        if self._kept is not None:
            self._kept[1].transport.abort()
            self._kept = None


async def read_answer(reader: asyncio.StreamReader, *, slowly: bool) -> Answer:
    """One answer, as long as its header says.

    Raises:
        EOFError, OSError: the connection ended before the answer did.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *fields = head.rstrip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in fields)}
    length, body = int(headers["content-length"]), b""
    while slowly and length - len(body) > _PIECE:
        body += await reader.readexactly(_PIECE)
        await asyncio.sleep(0.002)
    body += await reader.readexactly(length - len(body))
    return Answer(int(status.split()[1]), headers, body)
