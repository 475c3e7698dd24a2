"""What runs inside a model process: verify, load, warm up, then answer until told to stop."""
