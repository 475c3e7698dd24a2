"""The daemon that holds the models: one process per loaded model version.

Knows nothing of Django. `manage.py loaderd` composes it and hands it a reporter (`loaderd.reporter`).
"""

__version__ = "0.1.0"
