"""Everything about a row that is not its vector."""
