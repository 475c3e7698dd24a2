"""The admin's first page: what is loaded, what it costs, whether it is well, what just happened."""
