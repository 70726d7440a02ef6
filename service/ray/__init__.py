"""The same service as replicas of Ray Serve, and the same answers in Ray Data; only this room imports Ray."""
