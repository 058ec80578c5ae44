"""Speech of the small voice, and what a recogniser makes of it."""
