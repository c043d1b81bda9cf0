"""Quantisation, training and the two-stage search over a snapshot."""
