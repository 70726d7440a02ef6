"""A model from its file to traffic and out again."""
