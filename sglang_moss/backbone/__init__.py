"""Decoding steps of the language model's layers: what lies between their products, in few launches."""
