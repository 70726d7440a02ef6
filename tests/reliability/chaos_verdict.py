"""What a client of a server in trouble saw, and whether that was as promised.

A request that was sent whole gets exactly one answer: its own right one or an honest refusal. Only if the server was
killed meanwhile, it may get a broken connection instead, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tests.promised_digits import Digits, difference
from tests.reliability.mortal_server import MortalServer, Window

Leave = Literal["uploading", "queued", "reading"]


@dataclass(frozen=True)
class Ask:
    """A request and the one right answer to it, which is that of a quiet server."""

    path: str
    body: bytes = field(repr=False)
    content_type: str
    status: int
    answer: bytes = field(repr=False)
    identity: int = 0  # of the picture, for the engine
    threshold: float = 0.5  # of the answer


@dataclass(frozen=True)
class Manner:
    """How a client behaves."""

    name: str
    keep_connection: bool = True
    pieces: int = 1  # in which the request is sent
    reads_slowly: bool = False
    leaves: Leave | None = None  # when
    stops_amid: bool = False  # its request, and waits
    has_no_key: bool = False


@dataclass
class Keys:
    """Which API key a well-behaved client has at the moment."""

    valid: str
    rotations: list[Window] = field(default_factory=list)  # when either key may be refused


@dataclass
class Comparison:
    """Answers held against those of a quiet server."""

    digits: Digits | None  # that are promised; None where nothing may differ
    compared: int = 0
    differing: int = 0
    worst_score: float = 0.0
    worst_edge: float = 0.0  # pixels
    worst_pixels: float = 0.0  # share

    def is_right(self, ask: Ask, found: bytes) -> bool:
        """Whether an answer is as promised, which is noted."""
        self.compared += 1
        if found == ask.answer:
            return True
        self.differing += 1
        if self.digits is None:
            return False
        seen = difference(ask.answer, found, self.digits, ask.threshold)
        self.worst_score = max(self.worst_score, seen.score)
        self.worst_edge = max(self.worst_edge, seen.edge)
        self.worst_pixels = max(self.worst_pixels, seen.pixels)
        return seen.fault is None

    def told(self) -> str:
        """The figures, each beside what is promised."""
        told = f"{self.differing} of {self.compared} answers are not byte for byte those of a quiet server"
        if self.digits is None:
            return f"{told} (0 promised)"
        return (
            f"{told}: scores differ by up to {self.worst_score:.4g} ({self.digits.score:g} promised), edges by "
            f"{self.worst_edge:.2f} px (0.01 px or {self.digits.edge:g} of the side), and "
            f"{100 * self.worst_pixels:.2g} % of the pixels are in another segment ({100 * self.digits.pixels:g} %)"
        )


@dataclass
class World:
    """What clients and operator share."""

    server: MortalServer
    keys: Keys
    asks: Sequence[Ask]
    comparison: Comparison = field(default_factory=lambda: Comparison(None))
    engine_faults: list[Window] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    answered: dict[str, int] = field(default_factory=dict)  # request id to the server's generation
    is_over: bool = False

    def had_fault(self, begin: float, end: float) -> bool:
        """Whether the engine was told to fail at any moment between two."""
        return any(fault.overlaps(begin, end) for fault in self.engine_faults)

    def had_rotation(self, begin: float, end: float) -> bool:
        """Whether keys were changed at any moment between two."""
        return any(rotation.overlaps(begin, end) for rotation in self.keys.rotations)


@dataclass(frozen=True)
class Answer:
    """One that was read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Exchange:
    """What one client saw of one request."""

    ask: Ask
    manner: Manner
    request_id: str
    begin: float  # seconds of `time.monotonic()`
    sent: float  # when all of it was; infinity if that was never
    end: float
    answer: Answer | None  # None where the connection ended without one
    problem: str = ""  # with the connection


def outcome_of(answer: Answer) -> str:
    """The status, and the error's code if it is one."""
    if answer.status == 200:
        return "200"
    return f"{answer.status} {json.loads(answer.body)['error']['code']}"


def fault_of(exchange: Exchange, world: World) -> str | None:
    """Which promise was broken, if any."""
    begin, end, answer, manner = exchange.begin, exchange.end, exchange.answer, exchange.manner
    if answer is None:
        may_end = manner.stops_amid or world.server.may_lose(begin, exchange.sent, end)
        return None if may_end and "within" not in exchange.problem else "no answer"
    if exchange.problem and not world.server.was_dead(begin, end):
        return "not exactly one answer"
    # A request that stopped before its id was sent is answered with another.
    if not manner.stops_amid and answer.headers.get("x-request-id") != exchange.request_id:
        return "another's answer"
    if manner.has_no_key:
        return None if answer.status == 401 else "let in without a key"
    if answer.status == exchange.ask.status:
        is_right = answer.status != 200 or world.comparison.is_right(exchange.ask, answer.body)
        return None if is_right else "a wrong answer"
    if answer.status == 503 and not re.fullmatch(r"[1-9]\d*", answer.headers.get("retry-after", "")):
        return "no word of when to try again"
    allowed = {
        503: True,
        504: True,
        500: world.had_fault(begin, end) and outcome_of(answer) == "500 engine_error",
        401: world.had_rotation(begin, end),
        408: manner.stops_amid or manner.pieces > 1,
        400: manner.stops_amid,
    }
    return None if allowed.get(answer.status, False) else "a status that nothing explains"
