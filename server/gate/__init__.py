"""What every request passes before a route sees it, and what is known of it when it ends."""
