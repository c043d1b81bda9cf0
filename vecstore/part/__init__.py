"""One immutable object holding a batch of rows and their index."""
