"""What a model may be computed in, and what "auto" comes to on a device."""

from __future__ import annotations

from collections.abc import Collection

from model.runtime.engines.device_errors import DeviceError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def precision_in_force(asked: str, stored: str, device: str, native: Collection[str]) -> str:
    """What a model is computed in.

    A file that was exported or quantised to something else than float32 is computed as it is. A float32 file is
    computed in float32, except by an engine that knows how to compute the convolutions in bfloat16 and everything
    behind them in float32, on a processor with instructions for it: that is twice as fast, and the answers still do
    not depend on the batch.

    Args:
        asked: one of `PRECISIONS`.
        stored: the precision that the artifact's metadata name.
        device: for the message.
        native: what the device can compute a float32 file in, "float32" among it.

    Raises:
        DeviceError: it cannot be computed in what was asked for; one line says what can.
    """
    if asked not in PRECISIONS:
        raise DeviceError(f"there is no precision {asked!r}; use one of {', '.join(PRECISIONS)}")
    if stored != "float32":
        if asked in ("auto", stored):
            return stored
        raise DeviceError(f"precision {asked}: the model was exported as {stored}; use precision auto with it")
    if asked == "auto":
        return "bfloat16" if "bfloat16" in native else "float32"
    if asked in native:
        return asked
    raise DeviceError(f"precision {asked}: {_WANTING[asked].format(device=device)}; or use precision auto")


_WANTING = {
    "float16": "it needs a model that was exported with `detr export --precision float16`, and this one is float32",
    "bfloat16": (
        "device {device} does not compute in it here; it takes device openvino on a processor with AVX-512 BF16 or AMX"
    ),
}
