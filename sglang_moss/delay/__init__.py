"""The delay pattern: how frames lie in rows, and which codebooks are open when."""
