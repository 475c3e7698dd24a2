"""The Open Inference Protocol v2 (REST, with the binary tensor extension) as numpy arrays. Model processes only."""
