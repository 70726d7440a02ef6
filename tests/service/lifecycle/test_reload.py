"""The model is replaced while it serves: nobody is refused, nobody gets a mixture, and a bad file changes nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.errors import DrainingError, ModelRefusedError, ReloadingError, StartingError
from service.lifecycle.pipeline import Pipeline
from service.lifecycle.warm_up import load_and_warm_up
from tests.service.conftest import App, Serving, check_error, encode, scene, until
from tests.tiny_artifact import write_variant

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_variant(tmp_path / "model.onnx", "first", 0)


async def name_of(app: App) -> str:
    return str((await app.client.get("/model")).json()["name"])


async def test_a_new_file_takes_over_when_it_is_asked_to(serving: Serving, file: Path, jpeg: bytes) -> None:
    async with serving(model=file) as app:
        first = (await app.client.get("/model")).json()
        write_variant(file, "second", 1)
        assert await name_of(app) == "first"
        await app.service.reloader.reload()
        second = (await app.client.get("/model")).json()
        assert second["name"] == "second"
        assert second["digest"] != first["digest"]
        assert second["loaded_at"] >= first["loaded_at"]
        assert (await app.detect(jpeg)).json()["model"] == "second"
        samples = await app.samples()
        assert samples['detr_model_reloads_total{result="replaced"}'] == 1
        assert [name for name in samples if name.startswith("detr_model_info")] == [
            name for name in samples if 'name="second"' in name
        ]


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BAD: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-9] + b"X" + path.read_bytes()[-8:]),
    "a directory": make_directory,
}


@pytest.mark.parametrize("damage", BAD)
async def test_a_file_that_is_refused_changes_nothing(damage: str, serving: Serving, file: Path, jpeg: bytes) -> None:
    async with serving(model=file) as app:
        before = (await app.detect(jpeg)).json()
        BAD[damage](file)
        with pytest.raises(ModelRefusedError, match=r"^the model file was refused, model\.onnx: [^/]+$"):
            await app.service.reloader.reload()
        assert (await app.client.get("/health/ready")).status_code == 200
        assert (await app.detect(jpeg)).json() == before
        assert (await app.samples())['detr_model_reloads_total{result="refused"}'] == 1


async def test_what_a_library_says_of_a_file_is_for_the_log(
    serving: Serving, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(model=file) as app:

        def explode(*_: object) -> None:
            raise RuntimeError("at 0x7f0c12345678 in /usr/lib")

        monkeypatch.setattr("service.lifecycle.service.load_and_warm_up", explode)
        with pytest.raises(ModelRefusedError) as caught:
            await app.service.reloader.reload()
        assert str(caught.value) == "the model cannot be opened on its device; the log says why"
    assert "0x7f0c12345678" in caplog.text


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Holds reloads up until it is opened, and counts them."""

    class Gate:
        opened = threading.Event()
        entered = 0

    def wait(*arguments: Any) -> Any:
        Gate.entered += 1
        assert Gate.opened.wait(20)
        return load_and_warm_up(*arguments)

    Gate.opened = threading.Event()
    Gate.entered = 0
    Gate.patch = lambda: monkeypatch.setattr("service.lifecycle.service.load_and_warm_up", wait)  # type: ignore[attr-defined]
    return Gate


async def test_the_old_model_answers_while_the_new_one_loads(
    serving: Serving, file: Path, jpeg: bytes, gate: Any
) -> None:
    async with serving(model=file) as app:
        gate.patch()
        write_variant(file, "second", 1)
        reloading = asyncio.create_task(app.service.reloader.reload())
        await until(lambda: gate.entered == 1)
        assert (await app.detect(jpeg)).json()["model"] == "first"
        assert (await app.client.get("/health/ready")).status_code == 200
        with pytest.raises(ReloadingError):
            await app.service.reloader.reload()
        gate.opened.set()
        await reloading
        assert (await app.detect(jpeg)).json()["model"] == "second"


async def test_a_signal_during_a_reload_leads_to_another(serving: Serving, file: Path, gate: Any) -> None:
    async with serving(model=file) as app:
        gate.patch()
        app.service.reloader.reload_soon()
        await until(lambda: gate.entered == 1)
        write_variant(file, "second", 1)
        app.service.reloader.reload_soon()
        app.service.reloader.reload_soon()
        gate.opened.set()
        assert app.service.reloader._task is not None
        await app.service.reloader._task
        assert gate.entered == 2
        assert await name_of(app) == "second"


async def test_a_signal_whose_reload_fails_is_only_logged(
    serving: Serving, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(model=file) as app:
        file.unlink()
        app.service.reloader.reload_soon()
        assert app.service.reloader._task is not None
        await app.service.reloader._task
        assert await name_of(app) == "first"
    assert "the model is not reloaded: the model file was refused, model.onnx: there is no such file" in caplog.text


async def test_a_signal_whose_reload_fails_in_a_way_nobody_foresaw_is_logged_and_the_next_one_is_heard(
    serving: Serving, file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(_: object) -> None:
        raise RuntimeError("the new model cannot take over")

    async with serving(model=file) as app:
        reloader = app.service.reloader
        write_variant(file, "second", 1)
        with monkeypatch.context() as patched:
            patched.setattr(app.service, "take_over", break_down)
            reloader.reload_soon()
            assert reloader._task is not None
            await reloader._task
        assert "the new model cannot take over" in caplog.text
        assert await name_of(app) == "first"
        reloader.reload_soon()
        await reloader._task
        assert await name_of(app) == "second"


async def test_a_service_that_drains_is_not_reloaded(serving: Serving, file: Path, gate: Any) -> None:
    async with serving(model=file) as app:
        gate.patch()
        reloading = asyncio.create_task(app.service.reloader.reload())
        await until(lambda: gate.entered == 1)
        app.service.begin_drain()
        gate.opened.set()
        with pytest.raises(DrainingError):
            await reloading
        with pytest.raises(DrainingError):
            await app.service.reloader.reload()


async def test_before_the_first_model_there_is_nothing_to_replace(serving: Serving, file: Path) -> None:
    async with serving(model=file) as app:
        app.service.admission.current, pipeline = None, app.service.admission.current
        with pytest.raises(StartingError):
            await app.service.reloader.reload()
        app.service.admission.current = pipeline


def hold(pipeline: Pipeline) -> threading.Event:
    """Let the engine of a pipeline begin batches, and end none until the event is set."""
    engine = pipeline.batcher.engines.runners["cpu"]._thread.engine
    proceed = threading.Event()

    class Held:
        device = precision = "held"

        def infer(self, *arguments: Any) -> Any:
            assert proceed.wait(20)
            assert engine is not None
            return engine.infer(*arguments)

    pipeline.batcher.engines.runners["cpu"]._thread.engine = Held()
    return proceed


async def test_what_was_begun_ends_with_the_old_model_which_is_then_freed(
    serving: Serving, file: Path, jpeg: bytes
) -> None:
    async with serving(model=file, max_batch_size=1) as app:
        proceed = hold(app.service.admission.pipeline())
        old = weakref.ref(app.service.admission.pipeline())
        begun = [asyncio.create_task(app.detect(jpeg)) for _ in range(3)]
        await until(lambda: app.service.admission.pipeline().in_flight.count == 3)
        write_variant(file, "second", 1)
        await app.service.reloader.reload()
        assert (await app.detect(jpeg)).json()["model"] == "second"
        assert not any(task.done() for task in begun)
        assert (await app.samples())["detr_queue_depth"] == 2, "of both models"
        proceed.set()
        assert [(await task).json()["model"] for task in begun] == ["first"] * 3
        await until(lambda: not app.service._retired._finishing)
        del begun
        gc.collect()
        assert old() is None


async def test_both_models_together_take_no_more_requests_than_one(serving: Serving, file: Path, jpeg: bytes) -> None:
    async with serving(model=file, max_batch_size=1, max_queue_size=2) as app:
        proceed = hold(app.service.admission.pipeline())
        begun = [asyncio.create_task(app.detect(jpeg)) for _ in range(3)]
        await until(lambda: app.service.admission.pipeline().in_flight.count == 3)
        await app.service.reloader.reload()
        check_error(await app.detect(jpeg), 503, "queue_full")
        proceed.set()
        assert {(await task).status_code for task in begun} == {200}
        assert (await app.detect(jpeg)).status_code == 200


async def test_an_old_engine_that_hangs_is_replaced(serving: Serving, file: Path, jpeg: bytes) -> None:
    async with serving(model=file, request_timeout_ms=200, engine_stall_ms=50) as app:
        proceed = hold(app.service.admission.pipeline())
        check_error(await app.detect(jpeg), 504, "deadline_passed")
        check_error(await app.detect(jpeg), 503, "engine_stalled")
        assert (await app.samples())["detr_engine_stalled"] == 1
        app.service.admission.pipeline()._timeout = 600
        await app.service.reloader.reload()
        app.service.admission.pipeline()._timeout = 600
        assert (await app.detect(jpeg)).status_code == 200
        assert (await app.samples())["detr_engine_stalled"] == 0
        proceed.set()


async def test_a_drain_waits_for_the_old_model_as_well(serving: Serving, file: Path, jpeg: bytes) -> None:
    async with serving(model=file) as app:
        proceed = hold(app.service.admission.pipeline())
        begun = asyncio.create_task(app.detect(jpeg))
        await until(lambda: app.service.admission.pipeline().in_flight.count == 1)
        await app.service.reloader.reload()
        draining = asyncio.create_task(app.service.drain(20))
        await asyncio.sleep(0.01)
        assert not draining.done()
        proceed.set()
        assert (await begun).status_code == 200
        assert await draining is True


async def test_an_upload_that_began_with_the_old_model_is_answered_by_the_new_one(
    serving: Serving, file: Path, jpeg: bytes
) -> None:
    async with serving(model=file) as app:
        halfway = asyncio.Event()
        proceed = asyncio.Event()

        async def body() -> Any:
            yield jpeg[:100]
            halfway.set()
            await proceed.wait()
            yield jpeg[100:]

        uploading = asyncio.create_task(app.detect(body()))
        await halfway.wait()
        write_variant(file, "second", 1)
        await app.service.reloader.reload()
        await until(lambda: not app.service._retired._finishing)
        proceed.set()
        assert (await uploading).json()["model"] == "second"


async def test_models_are_swapped_under_load_and_every_answer_is_one_models(serving: Serving, file: Path) -> None:
    pictures = [encode(scene(64 + 16 * number, 96)) for number in range(4)]
    # One image a batch, because others in it move the last digit of a float.
    async with serving(model=file, max_batch_size=1, max_queue_size=100) as app:
        expected: dict[str, list[Any]] = {}
        for name, shift in (("second", 1.0), ("first", 0.0)):
            write_variant(file, name, shift)
            await app.service.reloader.reload()
            expected[name] = [(await app.detect(picture)).json() for picture in pictures]
        assert expected["first"][0]["detections"] != expected["second"][0]["detections"]
        answered = {"first": 0, "second": 0}
        stop = False

        async def ask(number: int) -> None:
            while not stop:
                answer = (await app.detect(pictures[number % 4])).json()
                assert answer == expected[answer["model"]][number % 4]
                answered[answer["model"]] += 1

        asking = [asyncio.create_task(ask(number)) for number in range(8)]
        for swap in range(10):
            name, shift = (("second", 1.0), ("first", 0.0))[swap % 2]
            write_variant(file, name, shift)
            await app.service.reloader.reload()
            since = sum(answered.values())
            await until(lambda since=since: sum(answered.values()) >= since + 8)  # type: ignore[misc]
        stop = True
        await asyncio.gather(*asking)
        assert min(answered.values()) > 0
        samples = await app.samples()
        assert samples['detr_requests_total{endpoint="detect",status="200"}'] == sum(answered.values()) + 8
        assert not any(name.startswith("detr_rejected_total") for name in samples)


async def test_an_engine_is_opened_again_only_from_the_file_it_came_from(serving: Serving, file: Path) -> None:
    async with serving(model=file) as app:
        reopen = app.service.admission.pipeline().reopen_engine
        assert reopen("cpu").device == "cpu"
        write_variant(file, "second", 1)
        with pytest.raises(Exception, match="replaced since it was loaded"):
            reopen("cpu")


async def test_a_lost_engine_ends_the_service(serving: Serving, file: Path, jpeg: bytes) -> None:
    async with serving(model=file, engine_hang_exit_ms=100, engine_stall_ms=50) as app:
        told: list[bool] = []
        app.service.on_failure = lambda: told.append(True)
        proceed = hold(app.service.admission.pipeline())
        waiting = asyncio.create_task(app.detect(jpeg))
        await until(lambda: bool(told))
        assert app.service.is_lost
        check_error(await app.client.get("/health/ready"), 503, "draining")
        await app.service.drain(20)
        check_error(await waiting, 503, "draining")
        proceed.set()
