"""The embedded engine: namespaces over a store, without a network."""
