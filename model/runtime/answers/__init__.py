"""From a network's outputs to detections, segments and pictures of them."""
