"""The same service as replicas of Ray Serve; only this room imports Ray."""
