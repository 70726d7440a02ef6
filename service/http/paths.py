"""The paths that are answered, each written here and nowhere else, what each is called in metrics, and what caches may
do with its answers.
"""

from __future__ import annotations

import re

DETECT = "/detect"
SEGMENT = "/segment"
EXPLAIN = "/explain"
MODEL = "/model"
RELOAD = "/model/reload"
METRICS = "/metrics"
LIVE = "/health/live"
LIVE_V2 = "/v2/health/live"
READY = "/health/ready"
READY_V2 = "/v2/health/ready"
SERVER_V2 = "/v2"
INDEX_V2 = "/v2/repository/index"
MODEL_V2 = "/v2/models/{name}"
MODEL_READY_V2 = "/v2/models/{name}/ready"
MODEL_CONFIG_V2 = "/v2/models/{name}/config"
INFER_V2 = "/v2/models/{name}/infer"
VERSION_V2 = "/v2/models/{name}/versions/{version}"
VERSION_READY_V2 = "/v2/models/{name}/versions/{version}/ready"
VERSION_CONFIG_V2 = "/v2/models/{name}/versions/{version}/config"
VERSION_INFER_V2 = "/v2/models/{name}/versions/{version}/infer"
LABEL_STUDIO_HEALTH = "/label-studio/health"
LABEL_STUDIO_SETUP = "/label-studio/setup"
LABEL_STUDIO_PREDICT = "/label-studio/predict"
LABEL_STUDIO_VERSIONS = "/label-studio/versions"
LABEL_STUDIO_WEBHOOK = "/label-studio/webhook"
PAGE = "/"
DOCS = "/docs"
OPENAPI = "/openapi.json"
# The page's style sheet, scripts and example pictures, which lie in the folder static/ by the same names.
STATIC = tuple(
    f"/static/{name}"
    for name in (
        "page.css",
        "main.js",
        "answers.js",
        "camera.js",
        "commands.js",
        "lists.js",
        "looking.js",
        "painting.js",
        "picture.js",
        "saving.js",
        "server.js",
        "example.jpg",
        "photograph.jpg",
    )
)

# The values are labels of metrics, which are bounded: any other path is "other", whatever it says.
ENDPOINTS = {
    DETECT: "detect",
    SEGMENT: "segment",
    EXPLAIN: "explain",
    MODEL: "model",
    RELOAD: "reload",
    METRICS: "metrics",
    LIVE: "live",
    LIVE_V2: "live",
    READY: "ready",
    READY_V2: "ready",
    SERVER_V2: "model",
    INDEX_V2: "model",
    MODEL_V2: "model",
    MODEL_READY_V2: "model",
    MODEL_CONFIG_V2: "model",
    INFER_V2: "infer",
    VERSION_V2: "model",
    VERSION_READY_V2: "model",
    VERSION_CONFIG_V2: "model",
    VERSION_INFER_V2: "infer",
    LABEL_STUDIO_HEALTH: "label_studio",
    LABEL_STUDIO_SETUP: "label_studio",
    LABEL_STUDIO_PREDICT: "label_studio_predict",
    LABEL_STUDIO_VERSIONS: "label_studio",
    LABEL_STUDIO_WEBHOOK: "label_studio",
    PAGE: "page",
    DOCS: "docs",
    OPENAPI: "openapi",
    **dict.fromkeys(STATIC, "static"),
}
IMAGES = (DETECT, SEGMENT, EXPLAIN)  # what is posted there is a picture
HEALTH = frozenset({LIVE, LIVE_V2, READY, READY_V2})
PAGES = frozenset({PAGE, DOCS, OPENAPI, *STATIC})
# What is answered there is everybody's and may be kept, if it is asked for anew each time (RFC 9111, section 5.2.2.4).
_KEPT = HEALTH | PAGES | {METRICS}
_PATTERNS = {path: re.compile(re.sub(r"{\w+}", "[^/]+", path)) for path in ENDPOINTS if "{" in path}


def route_of(target: str) -> str | None:
    """The path of the table that answers a request's path, with names in braces for what varies; None if there is
    none.
    """
    if target in ENDPOINTS:
        return target
    if not is_protocol(target):
        return None
    return next((path for path, pattern in _PATTERNS.items() if pattern.fullmatch(target)), None)


def takes_images(target: str) -> bool:
    """Whether a POST to a request's path asks for a place in the queue."""
    if target in (*IMAGES, LABEL_STUDIO_PREDICT):
        return True
    return is_protocol(target) and route_of(target) in (INFER_V2, VERSION_INFER_V2)


def is_protocol(target: str) -> bool:
    """Whether what is answered there, errors included, has the form of the Open Inference Protocol."""
    return target == SERVER_V2 or target.startswith(f"{SERVER_V2}/")


def cache_control(path: str, status: int) -> str:
    """What caches are told: nobody keeps an answer about a picture or a model, or an error."""
    return "no-cache" if path in _KEPT and status < 400 else "no-store"
