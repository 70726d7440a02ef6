"""A model behind plain FastAPI: one request after another, each in the handler itself.

python -m tests.benchmarks.baselines.plain MODEL --kind eager --task segment --port 8001
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Protocol, get_args

import uvicorn
from fastapi import FastAPI, Request, Response

from service.images.answers import TaskName


class Model(Protocol):
    """What is behind the server."""

    def answer(self, body: bytes) -> bytes:
        """One encoded image to JSON."""


def create_app(model: Model, kind: TaskName) -> FastAPI:
    """The whole server."""
    app = FastAPI()

    @app.post(f"/{kind}")
    async def answer(request: Request) -> Response:
        return Response(model.answer(await request.body()), media_type="application/json")

    @app.get("/health")
    async def health() -> str:
        return "ok"

    return app


def arguments(description: str) -> argparse.ArgumentParser:
    """What all baselines are told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a checkpoint, or a folder of transformers")
    parser.add_argument("--task", choices=get_args(TaskName), default="detect")
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--port", type=int, required=True)
    return parser


def load(kind: str, folder: Path, task: TaskName, threshold: float | None) -> Model:
    """The model; imported only here, because transformers takes seconds."""
    if kind == "pipeline":
        from tests.benchmarks.baselines.pipelines import PipelineModel

        return PipelineModel(folder, task, threshold)
    from tests.benchmarks.baselines.eager import EagerModel

    return EagerModel(folder, task, threshold)


def main() -> None:
    """Serve until told to end."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--kind", choices=("eager", "pipeline"), default="eager")
    args = parser.parse_args()
    app = create_app(load(args.kind, args.model, args.task, args.threshold), args.task)
    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
