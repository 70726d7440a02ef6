"""Weights in and out: published, Hugging Face's and this project's own, always checked strictly.

`errors`, `hugging_face`, `hugging_face_config`, `published` and `structure` import no torch, so that a model can be
recognised without it.
"""
