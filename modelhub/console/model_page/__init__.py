"""A model's page, its lineage's page and the rows of the list: what is true now, what happened, and what can be done."""
