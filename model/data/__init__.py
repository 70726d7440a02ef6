"""Datasets in COCO format: reading, drawing synthetic ones, transforming and batching.

Nothing is imported here, so that drawing a synthetic data set does not need torch.
"""
