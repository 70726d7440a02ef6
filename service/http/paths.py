"""The paths that are answered, each written here and nowhere else, and what each is called in metrics."""

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
