"""Trying a model out: a form of its signature, what it answers, and the same request for programs."""
