"""What was measured: samples, alerts, traces of single predictions, comparisons of two versions."""
