"""From accepted rows to audio on the wire: the codec's thread and what it shares with the scheduler."""
