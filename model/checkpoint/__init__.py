"""Weights in and out: published, Hugging Face's and this project's own, always checked strictly.

Only what reads pickles, builds networks or writes imports torch (`files`, `fitting`, `reading`, `saving`, `download`):
a model can be recognised without it.
"""
