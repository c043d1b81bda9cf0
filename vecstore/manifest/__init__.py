"""The view of a namespace: its model, how it is switched, how it is read."""
