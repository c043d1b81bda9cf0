"""Object stores: where bytes lie, and nothing of what they mean."""
