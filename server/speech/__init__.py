"""OpenAI's speech API and the stored voices, on top of `/generate`."""
