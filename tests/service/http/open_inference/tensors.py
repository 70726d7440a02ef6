"""Inference requests and answers of the Open Inference Protocol, written and read by hand."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from tests.service.conftest import LEAK

JSON = {"content-type": "application/json"}
LENGTH = "inference-header-content-length"
IMAGE = {"name": "image", "datatype": "BYTES", "shape": [1]}


def in_json(picture: bytes, **more: Any) -> dict[str, Any]:
    """A request with its picture in base64."""
    return {"inputs": [{**IMAGE, "data": [base64.b64encode(picture).decode()]}], **more}


def binary(picture: bytes, **more: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with its picture behind the JSON."""
    element = struct.pack("<I", len(picture)) + picture
    head = json.dumps({"inputs": [{**IMAGE, "parameters": {"binary_data_size": len(element)}}], **more}).encode()
    return head + element, {"content-type": "application/octet-stream", LENGTH: str(len(head))}


def tensors_of(response: httpx.Response) -> dict[str, Any]:
    """The tensors of an answer by their names, as lists, whether they came as JSON or as binary data."""
    assert response.status_code == 200, response.text
    end = int(response.headers.get(LENGTH, len(response.content)))
    answer, rest = json.loads(response.content[:end]), response.content[end:]
    found = {}
    for tensor in answer["outputs"]:
        if "data" in tensor:
            assert "parameters" not in tensor
            values = np.array(tensor["data"], dtype=object).reshape(tensor["shape"]).tolist()
        else:
            size = tensor["parameters"]["binary_data_size"]
            values = _elements(rest[:size], tensor["datatype"]).reshape(tensor["shape"]).tolist()
            rest = rest[size:]
        found[tensor["name"]] = values
    assert rest == b""
    return found


def _elements(data: bytes, datatype: str) -> NDArray[Any]:
    if datatype != "BYTES":
        return np.frombuffer(data, {"FP32": "<f4", "INT64": "<i8"}[datatype])
    found = []
    while data:
        size = struct.unpack("<I", data[:4])[0]
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return np.array(found, dtype=object)


def check_protocol_error(response: httpx.Response, status: int) -> str:
    """The response is an error as the protocol has it, and gives nothing away; its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    assert isinstance(body["error"], str)
    assert body["error"]
    assert len(response.content) < 500
    assert not LEAK.search(response.text), response.text
    return str(body["error"])
