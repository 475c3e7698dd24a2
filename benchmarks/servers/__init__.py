"""What runs inside the peers' environments. These files are started by their paths and know nothing of Modelhub."""
