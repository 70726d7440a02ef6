"""What classes are called: COCO's, and those of a names file."""
