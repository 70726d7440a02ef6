"""The network: backbone, position encodings, transformer, heads and mask head."""
