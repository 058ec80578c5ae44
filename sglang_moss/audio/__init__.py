"""Waveforms: reading what clients send, preparing references, writing WAV."""
