"""Jobs in the console, beside their list: the page that asks for one, and the dialogs on a job's page."""
