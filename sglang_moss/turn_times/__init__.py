"""When each turn of a script begins and ends in its speech, estimated from the sound.

samples -> sound.py: 10 ms frames, stretches between pauses -> estimate.py: stretches to turns -> turns with times
"""
