"""What a command that measures has: memory it watches, programs it starts, lines it leaves, and how it ends."""
