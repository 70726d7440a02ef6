"""What holds for every test: one thread, no downloads, the same examples on every machine."""

import os

# Set before numpy, torch or ONNX Runtime is imported. Results do not depend on the number of threads, but on
# small inputs many threads on few cores only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A test that needs a file from a model hub has to fail, not to download.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Official builds of ONNX Runtime report their use to their maker, unless this is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from hypothesis import HealthCheck, settings

settings.register_profile(
    "detr",
    deadline=None,  # a loaded machine is not a failure
    derandomize=True,  # the same examples on every machine
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("detr")
