"""What the thread pool does for an image: finding it in a form, decoding, resizing, answering."""
