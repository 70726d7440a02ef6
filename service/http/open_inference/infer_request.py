"""Reading the body of an inference request: JSON with the picture in base64, JSON with its bytes behind it, or its
bytes alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import InferRequestError, ParameterError
from service.http.open_inference.served_models import IMAGE, ServedModel
from service.images.json_text import JsonText, read_json_text
from service.schemas import ClassList, Threshold

_ONE_IMAGE = (
    "one image a request: exactly one input `image` of datatype BYTES and shape [1]; the server batches by itself"
)
_MAX_TENSORS = 16
_LENGTH_BYTES = 4  # before each element of a binary BYTES tensor, little-endian
# What may be told back: a short name, or the number of an element.
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}|[0-9]{1,5}")


class _Part(BaseModel):
    """Base of what a request consists of: no name that means nothing here, and no text for a number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class InputParameters(_Part):
    """Parameters of an input tensor."""

    binary_data_size: Annotated[int, Field(ge=0)] | None = None  # bytes, behind the JSON
    content_type: str | None = None  # what some clients call base64 by


class InferInput(_Part):
    """An input tensor."""

    name: str
    datatype: str
    shape: Annotated[list[int], Field(max_length=_MAX_TENSORS)]
    data: list[Any] | None = None
    parameters: InputParameters = InputParameters()


class OutputParameters(_Part):
    """Parameters of an output that is asked for."""

    binary_data: bool | None = None


class RequestedOutput(_Part):
    """An output that is asked for."""

    name: str
    parameters: OutputParameters = OutputParameters()


class InferParameters(_Part):
    """Parameters of a request."""

    threshold: Annotated[Threshold, Field(strict=False)] = None
    classes: ClassList | None = None
    binary_data_output: bool = False


class InferBody(_Part):
    """The JSON of a request."""

    id: str | None = None
    model_name: str | None = None  # kserve's client names the model here as well as in the path
    parameters: InferParameters = InferParameters()
    inputs: Annotated[list[InferInput], Field(max_length=_MAX_TENSORS)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=_MAX_TENSORS)] | None = None


@dataclass(frozen=True)
class InferRequest:
    """What a request says beside its image."""

    id: str | None
    threshold: float | None
    classes: str | None
    outputs: dict[str, bool]  # names of those that are wanted, in their order; whether as binary data


def read_infer_request(
    body: bytes | bytearray, json_bytes: int | None, model: ServedModel
) -> tuple[bytes, InferRequest]:
    """A picture's file, and what is wanted of it, from the body of an inference request.

    Args:
        body: all of it.
        json_bytes: that are JSON, before binary data; None where all is, and 0 where all is the picture.
        model: that is asked.

    Raises:
        BrokenJsonError, InferRequestError: it is no such request, or has not exactly one image.
        ParameterError: a parameter that the model does not have, or cannot use.
    """
    if json_bytes == 0:
        return bytes(body), InferRequest(None, None, None, _wanted_outputs(None, True, model))
    if json_bytes is not None and json_bytes > len(body):
        raise InferRequestError("Inference-Header-Content-Length is more than the body has")
    view = memoryview(body)
    text = read_json_text(body if json_bytes is None else view[:json_bytes], 1)
    binary = b"" if json_bytes is None else view[json_bytes:]
    request = _validated(text.value)
    if request.model_name not in (None, model.name):
        raise InferRequestError(f"model_name is not the model of the path, {model.name}")
    parameters = request.parameters
    outputs = _wanted_outputs(request.outputs, parameters.binary_data_output, model)
    image = _image(request.inputs, text, binary)
    return image, InferRequest(request.id, parameters.threshold, parameters.classes, outputs)


def _image(inputs: list[InferInput], text: JsonText, binary: bytes | memoryview) -> bytes:
    if len(inputs) != 1:
        raise InferRequestError(_ONE_IMAGE)
    (given,) = inputs
    if (given.name, given.datatype, tuple(given.shape)) != (IMAGE.name, IMAGE.datatype, IMAGE.shape):
        raise InferRequestError(_ONE_IMAGE)
    size = given.parameters.binary_data_size
    if (size or 0) != len(binary):
        raise InferRequestError("binary_data_size is not the number of bytes behind the JSON")
    if (size is None) == (given.data is None):
        raise InferRequestError("an input has either data or binary_data_size")
    if given.data is None:
        return _only_element(binary)
    if len(given.data) != 1 or not isinstance(given.data[0], str):
        raise InferRequestError(f"{_ONE_IMAGE}; its data is one text, the picture's file in base64")
    return text.base64(given.data[0], "the data of `image`")


def _only_element(binary: bytes | memoryview) -> bytes:
    """The one element of a binary BYTES tensor."""
    size = len(binary) - _LENGTH_BYTES
    if size < 0 or int.from_bytes(binary[:_LENGTH_BYTES], "little") != size:
        raise InferRequestError(f"{_ONE_IMAGE}; before its bytes comes their number, as 4 bytes, little-endian")
    return bytes(binary[_LENGTH_BYTES:])


def _wanted_outputs(asked: Iterable[RequestedOutput] | None, are_binary: bool, model: ServedModel) -> dict[str, bool]:
    known = [output.name for output in model.outputs]
    if not asked:
        return dict.fromkeys(known, are_binary)
    wanted: dict[str, bool] = {}
    for output in asked:
        if output.name not in known:
            raise InferRequestError(f"the model {model.name} has the outputs {', '.join(known)}, and no others")
        if output.name in wanted:
            raise InferRequestError(f"the output {output.name} is asked for twice")
        is_binary = output.parameters.binary_data
        wanted[output.name] = are_binary if is_binary is None else is_binary
    return wanted


def _validated(value: Any) -> InferBody:
    try:
        return InferBody.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) if _WORD.fullmatch(str(part)) else "?" for part in problem["loc"])
    kind = ParameterError if problem["loc"][:1] == ("parameters",) else InferRequestError
    if problem["type"] == "extra_forbidden":
        raise kind(f"unknown field: {where}")
    raise kind(f"{where or 'the request'}: {problem['msg']}")
