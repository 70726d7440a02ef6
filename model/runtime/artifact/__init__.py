"""The artifact: one .onnx file, its metadata and its golden sample."""
