"""A synthetic panoptic data set.

Nothing is imported here, so that drawing it does not need torch.
"""
