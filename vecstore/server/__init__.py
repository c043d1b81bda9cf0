"""HTTP, version 1: a Flask application over `vecstore.api`."""
