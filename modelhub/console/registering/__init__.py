"""Registering by hand: a model is uploaded, looked at, confirmed; what it says of itself is edited."""
