"""What it would cost to resize inside the graph: two products with each picture's own interpolation matrices.

    python -m tests.benchmarks.resize_in_graph [--rounds 15]

The host would send the decoded picture and two matrices that follow from its size, and the device resize. Printed are
milliseconds of processor time: of the resize on the host, of what the host would do instead (the picture onto its
canvas), and of the two products in ONNX Runtime on one core, with how many operations they are.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from model.runtime.preprocess import resize_to

Floats = NDArray[np.float32]
SIZES = {(480, 640): (800, 1066), (1080, 1920): (750, 1333)}  # (height, width), and at 800/1333


def matrix(length: int, new_length: int) -> Floats:
    """Pillow's bilinear filter along an axis as a matrix [new_length, length], antialiased where that shrinks."""
    scale = length / new_length
    reach = max(scale, 1.0)
    centres = (np.arange(new_length) + 0.5) * scale
    weights = np.clip(1 - np.abs((np.arange(length) + 0.5 - centres[:, None]) / reach), 0, None)
    normalized: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalized


def in_graph() -> onnxruntime.InferenceSession:
    """images uint8 [h, w, 3], rows [H, h], columns [W, w] -> uint8 [H, W, 3], on one core."""
    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        node("Transpose", ["pixels"], ["planes"], perm=[2, 0, 1]),
        node("Transpose", ["columns"], ["across"], perm=[1, 0]),
        node("MatMul", ["planes", "across"], ["wide"]),
        node("MatMul", ["rows", "wide"], ["resized"]),
        node("Transpose", ["resized"], ["last"], perm=[1, 2, 0]),
        node("Round", ["last"], ["rounded"]),
        node("Cast", ["rounded"], ["out"], to=TensorProto.UINT8),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["h", "w", 3]),
        helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["H", "h"]),
        helper.make_tensor_value_info("columns", TensorProto.FLOAT, ["W", "w"]),
    ]
    outputs = [helper.make_tensor_value_info("out", TensorProto.UINT8, ["H", "W", 3])]
    graph = helper.make_graph(nodes, "resize", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def milliseconds(work: Callable[[], object], rounds: int) -> float:
    """Median processor time."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return 1000 * statistics.median(times)


def row(size: tuple[int, int], new_size: tuple[int, int], rounds: int) -> str:
    """A line of the table."""
    (height, width), (new_height, new_width) = size, new_size
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    session, rows, columns = in_graph(), matrix(height, new_height), matrix(width, new_width)
    resized = resize_to(picture, new_size)

    def run() -> NDArray[np.uint8]:
        feed = {"images": np.asarray(picture), "rows": rows, "columns": columns}
        (out,) = session.run(None, feed)
        return np.asarray(out)

    off = np.abs(run().astype(int) - resized).max()
    operations = 6 * (height * width * new_width + new_height * height * new_width) / 1e9
    times = [
        milliseconds(work, rounds)
        for work in (lambda: resize_to(picture, new_size), lambda: resize_to(picture, size), run)
    ]
    cells = [f"{width} x {height}", *(f"{each:.1f}" for each in times), f"{operations:.1f}", str(off)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    print("| picture | resize, ms | onto its canvas, ms | in the graph, ms | 10^9 operations | levels apart |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size, new_size in SIZES.items():
        print(row(size, new_size, args.rounds), flush=True)


if __name__ == "__main__":
    main()
