"""Running a graph: ONNX Runtime and OpenVINO, on CPUs and GPUs."""
