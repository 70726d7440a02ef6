"""`detr predict`: what the service answers, for files and without a server."""
