"""HTTP around a served model: decode, batch, infer, answer.

Depends on `model.runtime` and a web framework, never on torch.
"""
