"""The Open Inference Protocol v2 over HTTP: what its clients ask of a server and its models, and inference itself."""
