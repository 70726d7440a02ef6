"""NVIDIA's Triton, the real server, for tests: from the Python package that brings it, with its Python backend only.

Its ONNX Runtime backend is in no package index, so a stand-in in Python runs the graph in its place, by the very
configuration that is written for it but for the name of the backend.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from tests.processes import free_port, running
from tests.server_process import environment

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("nvidia-pytriton==0.7.0", "numpy<2", str(REPOSITORY))
_START_S = 300.0
Answer = dict[str, NDArray[Any]]  # of one picture, by output

_STAND_IN = """
import numpy as np, onnxruntime, os, triton_python_backend_utils as pb

class TritonPythonModel:
    def initialize(self, args):
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path)
        self.batches = os.path.join(args["model_repository"], "batches")

    def execute(self, requests):
        return [self.run(request) for request in requests]

    def run(self, request):
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        with open(self.batches, "a") as file:
            print(*inputs["images"].shape, file=file)
        names = [output.name for output in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(None, inputs)))
        wanted = request.requested_output_names()
        return pb.InferenceResponse([pb.Tensor(name, outputs[name]) for name in names if name in wanted])
"""


@dataclass(frozen=True)
class Triton:
    """An environment that has Triton, its clients, and the project."""

    python: Path

    @classmethod
    def install(cls, folder: Path) -> Triton:
        """Make the environment."""
        venv.create(folder, with_pip=True)
        python = folder / "bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        triton = cls(python)
        # The backend looks for the stub of its Python beside itself.
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = triton._server / "python_backend_stubs" / version / "triton_python_backend_stub"
        shutil.copy(stub, triton._server / "backends/python")
        return triton

    @property
    def _packages(self) -> Path:
        (packages,) = self.python.parents[1].glob("lib/python3*/site-packages")
        return packages

    @property
    def _server(self) -> Path:
        return self._packages / "pytriton/tritonserver"

    def run_here(self, repository: Path) -> None:
        """Change a repository so that this Triton can run it: the graph by a stand-in, packages from here."""
        for config in repository.glob("*/config.pbtxt"):
            text = config.read_text()
            if "onnxruntime_onnx" in text:
                config.write_text(text.replace('platform: "onnxruntime_onnx"', 'backend: "python"'))
                (config.parent / "1/model.py").write_text(_STAND_IN)
        for model in repository.glob("*/1/model.py"):
            # Triton's own Python would find them: there, they are installed in it.
            found = f"import sys; sys.path.insert(0, {str(self._packages)!r})\n"
            model.write_text(found + model.read_text())

    @contextmanager
    def serving(self, repository: Path, log: Path) -> Iterator[str]:
        """Run the server with a repository, for the length of a `with` block; its address."""
        url = f"http://127.0.0.1:{free_port()}"
        command: list[str | Path] = [
            self._server / "bin/tritonserver",
            "--model-repository",
            repository,
            "--exit-timeout-secs",
            "1",
        ]
        command += ["--http-address", "127.0.0.1", "--http-port", url.rpartition(":")[2], "--allow-grpc", "false"]
        command += ["--allow-metrics", "false", "--backend-directory", self._server / "backends"]
        # Of its 30 s for the imports of a model a busy machine needs more.
        command += ["--backend-config", "python,stub-timeout-seconds=300"]
        with running(command, f"{url}/v2/health/ready", log, env=environment(), timeout_s=_START_S):
            yield url


def infer(url: str, model: str, inputs: Mapping[str, NDArray[Any]]) -> httpx.Response:
    """Ask a model by the protocol's JSON with binary inputs, which pictures need; the answer is JSON."""
    described, data = [], b""
    for name, values in inputs.items():
        raw = (
            b"".join(struct.pack("<I", len(file)) + file for file in values.flat)
            if values.dtype == object
            else values.tobytes()
        )
        dtype = "BYTES" if values.dtype == object else "FP32"
        parameters = {"binary_data_size": len(raw)}
        described.append({"name": name, "shape": values.shape, "datatype": dtype, "parameters": parameters})
        data += raw
    head = json.dumps({"inputs": described}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return httpx.post(f"{url}/v2/models/{model}/infer", content=head + data, headers=headers, timeout=60)


def detections(answer: httpx.Response) -> list[Answer]:
    """What each picture of a request was answered, without what fills it up. Raises AssertionError for an error."""
    assert answer.status_code == 200, answer.text
    outputs = {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in answer.json()["outputs"]}
    counts = outputs.pop("num_detections").reshape(-1)
    return [{name: values[index, :count] for name, values in outputs.items()} for index, count in enumerate(counts)]
