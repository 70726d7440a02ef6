"""What was looked at, over HTTP, is torch's own attention: alone and in company, on both engines of a CPU."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from model.checkpoint.saving import save_checkpoint
from model.data.shapes.command import CATEGORIES
from model.network.segmentation import DETRsegm
from model.runtime.engines.golden_recording import fixed_picture
from model.runtime.preprocess import resize
from service.app import create_app
from service.cli import main
from service.images.explanations import ExplainResponse
from service.settings import Settings
from tests.model.networks import SMALL, small_panoptic_network
from tests.model.torch_attention import attention_in_torch

pytestmark = pytest.mark.anyio

SIZES = ((120, 160), (100, 90), (60, 200), (33, 40))  # (height, width)
STRIDE, TOLERANCE = 16, 1e-4


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def network() -> DETRsegm:
    return small_panoptic_network()


@pytest.fixture(scope="module")
def artifact(network: DETRsegm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    save_checkpoint(folder / "small.safetensors", network.state_dict(), SMALL, CATEGORIES, {})
    main(["export", str(folder / "small.safetensors"), "--out", str(folder / "small.onnx"), "--attention"])
    return folder / "small.onnx"


def png(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(fixed_picture(*size)).save(buffer, "PNG")
    return buffer.getvalue()


def point_of(size: tuple[int, int]) -> tuple[float, float]:
    """x and y of a point right of the middle and below it."""
    return round(0.7 * size[1], 1), round(0.6 * size[0], 1)


async def explain(client: httpx.AsyncClient, size: tuple[int, int]) -> ExplainResponse:
    x, y = point_of(size)
    query: dict[str, str | int] = {"threshold": 0, "points": f"{x},{y}"}
    answer = await client.post("/explain", content=png(size), params=query, headers={"content-type": "image/png"})
    assert answer.status_code == 200, answer.text
    return ExplainResponse.model_validate_json(answer.content)


@pytest.mark.parametrize("device", ["cpu", "openvino"])
async def test_maps_over_http_are_torchs_alone_and_in_company(device: str, artifact: Path, network: DETRsegm) -> None:
    settings = Settings(
        model=str(artifact),
        device=device,  # type: ignore[arg-type]
        precision="float32",
        engine_threads=1,
        request_timeout_ms=600_000,
        max_queue_delay_ms=1000,
        batch_timing_ms=0,
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        await app.state.service.loaded()
        assert app.state.service.failure is None
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            alone = [await explain(client, size) for size in SIZES]
            before = app.state.service.metrics.text().decode()
            # Somebody in the batch asks for no attention.
            somebody = asyncio.create_task(client.post("/detect", content=png(SIZES[0])))
            together = await asyncio.gather(*(explain(client, size) for size in SIZES))
            assert (await somebody).status_code == 200
            after = app.state.service.metrics.text().decode()
    batches = [
        sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("detr_batch_size_count"))
        for text in (before, after)
    ]
    assert batches[1] - batches[0] < len(SIZES) + 1, "nobody had company"
    for size, by_itself, with_others in zip(SIZES, alone, together, strict=True):
        seen = resize(fixed_picture(*size), SMALL.resize)
        expected = attention_in_torch(network, seen)
        rows, columns = (-(-side // STRIDE) for side in seen.shape[:2])
        x, y = point_of(size)
        row, column = (int(at * new / old) // STRIDE for at, new, old in zip((y, x), seen.shape, size, strict=False))
        for answer in (by_itself, with_others):
            assert sorted(one.query for one in answer.objects) == list(range(SMALL.num_queries))
            for one in answer.objects:
                np.testing.assert_allclose(one.attention, expected.cross[one.query, :rows, :columns], atol=TOLERANCE)
            own = expected.own[row, column, :rows, :columns]
            np.testing.assert_allclose(answer.points[0].attention, own, atol=TOLERANCE)
