"""The real service, its sockets, signals and protocol included, with a scripted engine in place of a network.

    python -m tests.reliability.scripted_server --model TINY.onnx --port 0 --script '{"delay_ms": 20}'

Takes the options of `detr serve`. With `--network`, the model's own network computes, on the device that is asked for,
and the script says what goes wrong. While it runs, its script is changed over a socket that is inherited
(`--control-fd`): a line of JSON changes fields of the script, and is answered by a line with the engine's report. An
empty line only asks.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from dataclasses import asdict, replace

from model.runtime import decode
from model.runtime.engines.devices import devices_of
from model.runtime.engines.engine import Engine
from model.runtime.image_formats import ALWAYS
from service.cli import add_serve
from service.lifecycle.loading import ArtifactLoader, LoadedModel, ModelLoader
from service.lifecycle.service import StartupError
from service.server import BAD_SETTING, STARTUP_FAILED, run
from service.settings import Settings, SettingsError, read_settings
from tests.reliability.scripted_engine import Script, ScriptedEngine, ScriptedNetwork, hangs
from tests.service.fakes import EngineLoader


def main() -> int:
    """Serve until told to stop; the exit codes are those of `detr serve`."""
    parser = argparse.ArgumentParser(prog="scripted_server")
    add_serve(parser)
    parser.add_argument("--script", type=json.loads, default={})
    parser.add_argument("--control-fd", type=int)
    parser.add_argument("--network", action="store_true")
    arguments = vars(parser.parse_args())
    engine = ScriptedEngine(Script().changed(arguments["script"]))
    let_decoders_hang(engine)
    try:
        given = {name: value for name, value in arguments.items() if name in Settings.model_fields}
        # To time batches would play the script before anybody asks.
        settings = read_settings({"batch_timing_ms": "0"} | given)
        engines = [engine] * len(devices_of(settings.device_words, lambda: 1))
        loader: ModelLoader = EngineLoader(settings, *engines, on_reopen=engine.reopen)
        if arguments["network"]:
            loader = NetworkLoader(settings, engine)
        return run(settings, ControlledLoader(loader, engine, arguments["control_fd"]))
    except (SettingsError, StartupError) as error:
        print(f"scripted_server: {error}", file=sys.stderr)
        return BAD_SETTING if isinstance(error, SettingsError) else STARTUP_FAILED


def let_decoders_hang(engine: ScriptedEngine) -> None:
    """Have decoders obey the script, too. One that hangs is away from Python, as libjpeg is."""
    sniff = decode.sniff

    def sniff_or_hang(data: bytes | bytearray, formats: frozenset[str] = ALWAYS) -> str:
        if hangs(data):
            time.sleep(engine.script.decode_hang_s)
        return sniff(data, formats)

    decode.sniff = sniff_or_hang


class NetworkLoader(ArtifactLoader):
    """Loads the artifact as the service does, and makes its engine obey the script."""

    def __init__(self, settings: Settings, engine: ScriptedEngine) -> None:
        super().__init__(settings)
        self._scripted = engine

    def load(self) -> LoadedModel:
        model = super().load()
        engines = {name: ScriptedNetwork(self._scripted, engine) for name, engine in model.engines.items()}
        return replace(model, engines=engines)

    def reopen(self, digest: str, name: str) -> Engine:
        self._scripted.reopen()
        return ScriptedNetwork(self._scripted, super().reopen(digest, name))


class ControlledLoader:
    """Begins to obey when the engine is taken for the first time: a thread that started before the service does would
    have memory that `detr serve` does not have, so it would be another process whose growth is measured."""

    def __init__(self, loader: ModelLoader, engine: ScriptedEngine, control_fd: int | None) -> None:
        self._loader = loader
        self._scripted = engine
        self._control_fd = control_fd
        self.reopen = loader.reopen

    def load(self) -> LoadedModel:
        if self._control_fd is not None:
            control = socket.socket(fileno=self._control_fd)
            self._control_fd = None
            threading.Thread(target=obey, args=(control, self._scripted), daemon=True, name="control").start()
        return self._loader.load()


def obey(control: socket.socket, engine: ScriptedEngine) -> None:
    """Answer each line with the report, having changed the script as it says, until the other end is closed."""
    with control.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            if changes := json.loads(line or "{}"):
                engine.follow(engine.script.changed(changes))
            lines.write(json.dumps(asdict(engine.report)) + "\n")
            lines.flush()


if __name__ == "__main__":
    sys.exit(main())
