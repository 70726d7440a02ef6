"""Data sets as tools write them: where their files are, what these say, and what pictures and objects they have."""
