"""What one would serve DETR with otherwise, to compare with."""
