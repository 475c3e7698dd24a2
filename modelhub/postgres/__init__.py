"""Embedded Postgres (placeholder until the launcher lands)."""


def embedded_database_url(config):
    return "postgres://modelhub@127.0.0.1:54329/modelhub"
