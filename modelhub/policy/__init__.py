"""Settings that people change while Modelhub runs: the environment's values, overridden by one record."""
