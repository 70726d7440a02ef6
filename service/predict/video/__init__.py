"""Videos and cameras for `detr predict`: their frames through the same network, answered and drawn in their order."""
