"""Load on a running service, and what it took: `detr bench`."""
