"""The network that a training begins with: its weights, its classes and what of it learns."""
