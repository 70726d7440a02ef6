"""The paths that are answered, each written here and nowhere else, what each is called in metrics, and what caches may
do with its answers.
"""

from __future__ import annotations

DETECT = "/detect"
SEGMENT = "/segment"
MODEL = "/model"
RELOAD = "/model/reload"
METRICS = "/metrics"
LIVE = "/health/live"
LIVE_V2 = "/v2/health/live"
READY = "/health/ready"
READY_V2 = "/v2/health/ready"
PAGE = "/"
EXAMPLE = "/example.jpg"
DOCS = "/docs"
OPENAPI = "/openapi.json"

# The values are labels of metrics, which are bounded: any other path is "other", whatever it says.
ENDPOINTS = {
    DETECT: "detect",
    SEGMENT: "segment",
    MODEL: "model",
    RELOAD: "reload",
    METRICS: "metrics",
    LIVE: "live",
    LIVE_V2: "live",
    READY: "ready",
    READY_V2: "ready",
    PAGE: "page",
    EXAMPLE: "example",
    DOCS: "docs",
    OPENAPI: "openapi",
}
HEALTH = frozenset({LIVE, LIVE_V2, READY, READY_V2})
PAGES = frozenset({PAGE, EXAMPLE, DOCS, OPENAPI})
# What is answered there is everybody's and may be kept, if it is asked for anew each time (RFC 9111, section 5.2.2.4).
_KEPT = HEALTH | PAGES | {METRICS}


def cache_control(path: str, status: int) -> str:
    """What caches are told: nobody keeps an answer about a picture or a model, or an error."""
    return "no-cache" if path in _KEPT and status < 400 else "no-store"
