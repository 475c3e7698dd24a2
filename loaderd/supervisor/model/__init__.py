"""One managed model: where it stands, and each of its moves."""
