"""`manage.py up`: everything that Modelhub needs, in one command, and nothing left after it."""
