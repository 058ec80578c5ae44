"""Attention of the language model's decoding steps over SGLang's paged KV cache."""
