"""What a training is told, what it chooses by itself, and what is said of both before the first step."""
