"""Interlaced frames, of which each second line is a moment later, as whole pictures: FFmpeg's filter yadif."""

from __future__ import annotations

from collections.abc import Iterator

from av.error import BlockingIOError as NotYet
from av.error import EOFError as NoMore
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream


class Deinterlacer:
    """Lets frames pass; from the first interlaced one on, through the filter, which leaves others as they are.

    Args:
        stream: whose frames these are.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._stream = stream
        self._graph: Graph | None = None

    def take(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Those that are ready now; the filter needs the next frame for each."""
        if self._graph is None and frame.interlaced_frame:
            self._graph = _graph(self._stream)
        if self._graph is None:
            yield frame
        else:
            self._graph.vpush(frame)
            yield from _pulled(self._graph)

    def finish(self) -> Iterator[VideoFrame]:
        """Those that are left."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from _pulled(self._graph)


def _graph(stream: VideoStream) -> Graph:
    graph = Graph()
    nodes = graph.add_buffer(template=stream), graph.add("yadif", "deint=interlaced"), graph.add("buffersink")
    graph.link_nodes(*nodes).configure()
    return graph


def _pulled(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (NotYet, NoMore):
            return
