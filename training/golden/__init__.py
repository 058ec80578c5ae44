"""Checks against data that upstream's own code made: rows, labels, losses, gradients, and four steps of training."""
