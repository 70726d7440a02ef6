"""What a served model needs: the artifact, preprocessing, an engine and post-processing.

Depends on NumPy, Pillow, ONNX Runtime and pycocotools only. Nothing in here imports torch or a web framework,
so that a service installs without either.
"""
