"""DETR: the network, its training and export; `model.runtime` is the part that serves it, without torch."""

import os

# Official builds of ONNX Runtime report their use to their maker over the network, from the first import on,
# unless this is set before. It stands here because this file runs before any module of the package imports
# ONNX Runtime. Whoever wants the reports sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
