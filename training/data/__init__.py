"""From JSONL and audio files to a dataset of codes on disk."""
