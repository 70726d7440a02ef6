"""A Ray of its own with Ray Serve, as a program: it deploys what it is told to, and says what has become of it.

Each line on standard input is a configuration of Ray Serve, as JSON, or `null`. For each there is a line on standard
output with the status of the application, and one before the first, once Ray is there. It ends with its input, and Ray
with it. Run it where no network is: Ray's ports listen on every address.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import chain
from typing import Any

import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

_ROUND_S = 3  # in which Ray's controller notes a new configuration
_TRIES = 5
_MEMORY = 100 * 2**20  # bytes of the object store, in which nothing lies


def status() -> dict[str, Any]:
    """The application's status, its message, and how many replicas are in which state."""
    found = serve.status().applications.get("detr")
    if found is None:
        return {"status": "NOT_STARTED", "message": "", "replicas": {}}
    replicas = {
        str(state): count for each in found.deployments.values() for state, count in each.replica_states.items()
    }
    messages = [found.message, *(each.message for each in found.deployments.values())]
    return {"status": str(found.status.value), "message": "\n".join(messages), "replicas": replicas}


def deploy(config: dict[str, Any]) -> None:
    """What `serve run` does with a file, until it has worked out or failed."""
    client = _get_global_client()
    assert client is not None
    client.deploy_apps(ServeDeploySchema.model_validate(config))
    time.sleep(_ROUND_S)
    while status()["status"] not in ("RUNNING", "DEPLOY_FAILED"):
        time.sleep(0.2)


def start() -> None:
    """Start Ray; once more where the machine is so loaded that one of its processes misses a deadline of the others."""
    for tries_left in reversed(range(_TRIES)):
        try:
            ray.init(
                num_cpus=int(os.environ["RAY_DRIVER_CPUS"]),
                include_dashboard=False,
                object_store_memory=_MEMORY,
                log_to_driver=False,
                _temp_dir=os.environ["RAY_DRIVER_FOLDER"],
            )
        except Exception:
            if not tries_left:
                raise
            ray.shutdown()
        else:
            return


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Ray prints, too
    # On the main thread: Ray's own processes end with the thread that started them.
    start()
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["RAY_DRIVER_PORT"])})
    for config in chain([None], map(json.loads, sys.stdin)):
        if config is not None:
            deploy(config)
        print(json.dumps(status()), file=answers, flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
