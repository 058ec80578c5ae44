"""What is asked of a server, how many at a time, and what came of it."""
