"""How good answers are: COCO's average precision of boxes and panoptic quality, and the page that shows both."""
