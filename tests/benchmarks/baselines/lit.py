"""A checkpoint in eager PyTorch behind LitServe, which batches up to eight requests.

    python -m tests.benchmarks.baselines.lit CHECKPOINT --task detect --port 8001

A request is JSON with the image in base64, because LitServe takes JSON and forms.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import litserve

from model.runtime.engines.raw_outputs import ImageOutputs
from service.images.answers import TaskName
from service.images.task import Prepared
from tests.benchmarks.baselines.eager import EagerModel
from tests.benchmarks.baselines.plain import arguments

MAX_BATCH_SIZE = 8
BATCH_TIMEOUT_S = 0.05


class EagerApi(litserve.LitAPI):  # type: ignore[misc]  # LitServe ships no types
    """The four steps that LitServe calls."""

    def __init__(self, checkpoint: Path, kind: TaskName, threshold: float | None) -> None:
        super().__init__(max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_S, api_path=f"/{kind}")
        self._given = checkpoint, kind, threshold

    def setup(self, device: str) -> None:
        """Load the model, in the worker's process."""
        self.model = EagerModel(*self._given)

    def decode_request(self, request: dict[str, str]) -> Prepared:
        """Decode and resize."""
        return self.model.prepare(base64.b64decode(request["image"]))

    def batch(self, inputs: list[Prepared]) -> list[Prepared]:
        """Leave the images apart, because the model puts them on a canvas itself."""
        return list(inputs)

    def predict(self, batch: list[Prepared]) -> list[tuple[Prepared, ImageOutputs]]:
        """Run the network."""
        return list(zip(batch, self.model.infer(batch), strict=True))

    def unbatch(self, output: list[tuple[Prepared, ImageOutputs]]) -> list[tuple[Prepared, ImageOutputs]]:
        """Each image's own."""
        return output

    def encode_response(self, output: tuple[Prepared, ImageOutputs]) -> Any:
        """Make the answer."""
        return json.loads(self.model.finish(*output))


def main() -> None:
    """Serve until told to end."""
    args = arguments(__doc__ or "").parse_args()
    api = EagerApi(args.model, args.task, args.threshold)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, timeout=False)
    server.run(host="127.0.0.1", port=args.port, log_level="warning", generate_client_file=False, num_api_servers=1)


if __name__ == "__main__":
    main()
