"""Files of rows that are predicted offline: read and written in a stream, resumed after a crash, never in the way."""
