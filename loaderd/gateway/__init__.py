"""The inference door: one process that authenticates, routes and forwards raw bytes. No numpy, no framework."""
