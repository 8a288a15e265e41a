"""Clips from the tars of a dataset, in an order and with draws that only the seed decides."""
