"""Generated text: what may be asked for, and how many requests are written at once, token by token."""
