"""A model's page, its lineage's page and the list's rows: what is true now, what happened, what can be done."""
