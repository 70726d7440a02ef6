"""Models by name: from a name on the Hugging Face hub, or a folder, to the path of an artifact. No torch is needed."""
