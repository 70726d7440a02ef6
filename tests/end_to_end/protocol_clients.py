"""What clients of the Open Inference Protocol make of a service, as JSON: run in an environment that has them.

    python protocol_clients.py URL PICTURE

KServe's client wants another protobuf than the rest of the project, so it cannot be imported by a test.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

THRESHOLD = {"threshold": 0.3}
NO_PICTURE = b"hello"


def main(url: str, picture: bytes) -> None:
    """Print what both clients are answered."""
    print(json.dumps({"triton": of_triton(url, picture), "kserve": asyncio.run(of_kserve(url, picture))}))


def of_triton(url: str, picture: bytes) -> dict[str, Any]:
    """Health, metadata, tensors by the way they were asked for, and errors as they are printed."""
    client = triton.InferenceServerClient(url.removeprefix("http://"))

    def tensors(model: str, is_binary: bool) -> dict[str, Any]:
        given, wanted = triton_input(picture, is_binary), None
        if not is_binary:
            names = [output["name"] for output in client.get_model_metadata(model)["outputs"]]
            wanted = [triton.InferRequestedOutput(name, binary_data=False) for name in names]
        answer = client.infer(model, [given], outputs=wanted, parameters=THRESHOLD, request_id="seven")
        assert answer.get_response()["id"] == "seven"
        outputs = answer.get_response()["outputs"]
        return {output["name"]: plain(answer.as_numpy(output["name"])) for output in outputs}

    return {
        "health": [client.is_server_live(), client.is_server_ready(), client.is_model_ready("detect", "1")],
        "unknown model": client.is_model_ready("none"),
        "server": client.get_server_metadata(),
        "index": client.get_model_repository_index(),
        "config": client.get_model_config("segment"),
        "answers": {model: [tensors(model, way) for way in (True, False)] for model in ("detect", "segment")},
        "errors": errors_of(
            lambda: client.infer("detect", [triton_input(NO_PICTURE)]),
            lambda: client.infer("none", [triton_input(picture)]),
            lambda: client.infer("detect", [triton_input(picture)], parameters={"threshold": 4.0}),
            lambda: client.infer("detect", [triton_input(picture)], request_compression_algorithm="gzip"),
            lambda: client.infer("detect", [triton_input(b"x" * 2**20)]),
            lambda: client.load_model("detect"),
        ),
    }


def triton_input(picture: bytes, is_binary: bool = True) -> triton.InferInput:
    """The one input, as binary data or in base64."""
    given = triton.InferInput("image", [1], "BYTES")
    element = picture if is_binary else base64.b64encode(picture)
    given.set_data_from_numpy(np.array([element], dtype=object), binary_data=is_binary)
    return given


def errors_of(*calls: Callable[[], object]) -> list[str]:
    """What is printed of the error that each call ends in."""
    return [str(error_of(call)) for call in calls]


def error_of(call: Callable[[], object]) -> Exception:
    """The error that a call ends in."""
    try:
        return AssertionError(f"no error, but {call()}")
    except Exception as error:
        return error


async def of_kserve(url: str, picture: bytes) -> dict[str, Any]:
    """Health, tensors by the way they were asked for, and errors as they are printed."""
    client = InferenceRESTClient(RESTConfig(protocol="v2"))

    async def infer(model: str, content: bytes, is_binary: bool, threshold: float = 0.3) -> dict[str, Any]:
        given = InferInput("image", [1], "BYTES")
        element = content if is_binary else base64.b64encode(content)
        given.set_data_from_numpy(np.array([element], dtype=object), binary_data=is_binary)
        # It takes binary answers for text, which a PNG is not.
        wants_binary = is_binary and model == "detect"
        parameters = {"threshold": threshold, "binary_data_output": wants_binary}
        request = InferRequest(model_name=model, infer_inputs=[given], parameters=parameters)
        answer = await client.infer(url, request, model_name=model)
        return {output.name: plain(output.as_numpy()) for output in answer.outputs}

    errors = []
    for model, content, threshold in (("detect", NO_PICTURE, 0.3), ("none", picture, 0.3), ("detect", picture, 4.0)):
        try:
            errors.append(f"no error, but {await infer(model, content, True, threshold)}")
        except Exception as error:
            errors.append(str(error))
    return {
        "health": [
            await client.is_server_live(url),
            await client.is_server_ready(url),
            await client.is_model_ready(url, "detect"),
        ],
        "unknown model": await client.is_model_ready(url, "none"),
        "answers": {
            model: [await infer(model, picture, way) for way in (True, False)] for model in ("detect", "segment")
        },
        "errors": errors,
    }


def plain(values: Any) -> list[Any]:
    """A tensor as lists; BYTES as text, in base64 what is none."""
    return [as_text(value) if isinstance(value, bytes) else value for value in values.tolist()]


def as_text(value: bytes) -> str:
    """A label, or a file in base64."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def arguments(words: Sequence[str]) -> tuple[str, bytes]:
    """The URL and the picture of a command line."""
    url, path = words
    return url, Path(path).read_bytes()


if __name__ == "__main__":
    main(*arguments(sys.argv[1:]))
