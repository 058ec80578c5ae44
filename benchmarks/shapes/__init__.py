"""Models of the published shapes, with random weights, and inputs of their kernels."""
