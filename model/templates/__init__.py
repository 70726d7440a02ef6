"""Graphs without weights, one for each published architecture, and the importer that fills them without torch."""
