"""Fitting a network to a data set."""
