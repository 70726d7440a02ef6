"""The paths that are answered, and what each is called in metrics."""

from __future__ import annotations

# Labels are bounded: any other path is "other", whatever it says.
ENDPOINTS = {
    "/detect": "detect",
    "/segment": "segment",
    "/model": "model",
    "/model/reload": "reload",
    "/metrics": "metrics",
    "/health/live": "live",
    "/v2/health/live": "live",
    "/health/ready": "ready",
    "/v2/health/ready": "ready",
    "/": "page",
    "/docs": "docs",
    "/openapi.json": "openapi",
}
HEALTH = frozenset(path for path, name in ENDPOINTS.items() if name in ("live", "ready"))
PAGES = frozenset(path for path, name in ENDPOINTS.items() if name in ("page", "docs", "openapi"))
