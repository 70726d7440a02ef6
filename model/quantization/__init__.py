"""int8: which layers of an exported graph compute in it, with which ranges, and how the graph says so."""
