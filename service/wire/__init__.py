"""Everything that leans on the insides of uvicorn and h11."""
