"""What the process says of itself, and what it takes."""
