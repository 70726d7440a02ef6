"""A model repository for NVIDIA Triton: the graph, and in front of it a model that takes pictures.

A bare .onnx file in a repository is configured by Triton itself, with a batch dimension for every input and output. The
masks of a panoptic graph have none (there are as many as queries were kept), so that Triton cuts them to the number of
pictures, without an error. So each configuration is written here, whole.

Layout and configuration: https://github.com/triton-inference-server/server, docs/user_guide/model_repository.md and
model_configuration.md.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from model.runtime.artifact.file import Artifact
from model.runtime.artifact.graph_contract import expected_inputs, expected_outputs
from model.runtime.artifact.metadata import Metadata

MAX_BATCH = 8  # pictures
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_TYPES = {
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(bool)": "TYPE_BOOL",
    "tensor(float)": "TYPE_FP32",
    "tensor(int64)": "TYPE_INT64",
}

_MODEL = '''"""DETR for Triton's Python backend; the code is in the installed package detr-serve."""

from service.triton import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''

_README = """# {name} for Triton

`{name}` takes pictures and answers detections; `{graph}` is the network, which `{name}` asks.

Start it with an image of Triton that has the backends `python` and `onnxruntime`, in which detr-serve is installed:

```
pip install detr-serve "numpy<2"
tritonserver --model-repository FOLDER
```

Triton's Python backend before its repair for NumPy 2 reads every tensor wrong with it, hence the bound.

| input of `{name}` | type | |
| --- | --- | --- |
| `image` | BYTES [1] | a picture's file: JPEG, PNG or WebP |
| `threshold` | FP32 [1] | may be left out; {threshold:g} is the model's own |

| output | type | |
| --- | --- | --- |
| `num_detections` | INT32 [1] | how many of the others' entries there are; the rest is zero |
| `boxes` | FP32 [{queries}, 4] | x1, y1, x2, y2 in pixels of the picture as it is displayed |
| `scores` | FP32 [{queries}] | best first |
| `category_ids` | INT32 [{queries}] | as in the training data |
| `labels` | BYTES [{queries}] | names of the categories |
"""


def check_place(folder: Path, name: str) -> None:
    """Find out what would keep `write_triton_repository` from writing these models there, before any work is done.

    Raises:
        ValueError: Triton takes no model of this name.
        FileExistsError: there is a model of one of the names.
        OSError: nothing can be written there.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"a model of Triton is named by letters, digits, '_', '.' and '-', so not {name!r}")
    for model in (name, _graph(name)):
        if os.path.lexists(folder / model):
            raise FileExistsError(f"{folder / model} exists: give another folder or another --name")
    nearest = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is no folder: give another one")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"nothing may be written to {nearest}: give another folder")


def write_triton_repository(folder: Path, artifact: Artifact, name: str) -> None:
    """Write both models, named `name` and `name`_graph, to a folder, which may hold other models already.

    Raises:
        ValueError, OSError: what `check_place` raises.
    """
    check_place(folder, name)
    graph, metadata = _graph(name), artifact.metadata
    folder.mkdir(parents=True, exist_ok=True)
    # A Triton that watches the folder sees whole models only, the graph before who asks it.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as unfinished:
        _write(Path(unfinished) / graph, graph_config(metadata, graph), {"model.onnx": artifact.data})
        pictures = {"model.py": _MODEL.encode(), "metadata.json": metadata.to_json().encode()}
        _write(Path(unfinished) / name, picture_config(metadata, name, graph), pictures)
        described = _README.format(
            name=name, graph=graph, threshold=metadata.detect_threshold, queries=metadata.num_queries
        )
        (Path(unfinished) / name / "README.md").write_text(described, encoding="utf-8")
        for model in (graph, name):
            shutil.move(Path(unfinished) / model, folder / model)


def _graph(name: str) -> str:
    return f"{name}_graph"


def _write(folder: Path, config: str, files: Mapping[str, bytes]) -> None:
    """A model's folder with its only version."""
    version = folder / "1"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    for name, data in files.items():
        (version / name).write_bytes(data)


def graph_config(metadata: Metadata, name: str) -> str:
    """The configuration of the graph, in protobuf's text format; whoever asks it brings whole batches."""
    lines = [f'name: "{name}"', 'platform: "onnxruntime_onnx"', "max_batch_size: 0"]
    for kind, ports in (("input", expected_inputs(metadata)), ("output", expected_outputs(metadata))):
        for port, (dtype, shape) in ports.items():
            lines.append(_port(kind, port, _TYPES[dtype], (-1 if size is None else size for size in shape)))
    return "\n".join(lines) + "\n"


def picture_config(metadata: Metadata, name: str, graph: str) -> str:
    """The configuration of the model that takes pictures, in protobuf's text format.

    Its instances wait for the graph most of the time, so that a second one prepares the next batch meanwhile. The queue
    has no limits: with one, Triton's batcher delays every request (triton-inference-server/server, issue 8870).
    """
    queries = metadata.num_queries
    return "\n".join(
        [
            f'name: "{name}"',
            'backend: "python"',
            f"max_batch_size: {MAX_BATCH}",
            _port("input", "image", "TYPE_STRING", (1,)),
            _port("input", "threshold", "TYPE_FP32", (1,), optional=True),
            _port("output", "num_detections", "TYPE_INT32", (1,)),
            _port("output", "boxes", "TYPE_FP32", (queries, 4)),
            _port("output", "scores", "TYPE_FP32", (queries,)),
            _port("output", "category_ids", "TYPE_INT32", (queries,)),
            _port("output", "labels", "TYPE_STRING", (queries,)),
            "dynamic_batching { }",
            "instance_group [ { kind: KIND_CPU count: 2 } ]",
            f'parameters {{ key: "graph" value: {{ string_value: "{graph}" }} }}',
            "",
        ]
    )


def _port(kind: str, name: str, dtype: str, shape: Iterable[int], *, optional: bool = False) -> str:
    fields = f'name: "{name}" data_type: {dtype} dims: [ {", ".join(map(str, shape))} ]'
    return f"{kind} [ {{ {fields}{' optional: true' if optional else ''} }} ]"
