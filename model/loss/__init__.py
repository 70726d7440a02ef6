"""What a network is trained by: the Hungarian matcher and the set criterion."""
