"""The MOSS audio tokenizer: 24 kHz waveforms to codes and back."""
