"""A request before the scheduler: what was sent, checked and turned into prompt rows (HTTP process)."""
