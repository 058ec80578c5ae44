"""The judge: what of a script can be heard, in whose voice, and whether the sound itself is sound.

    dataset -> speaking -> clips -> recognisers -> error_rates ---+
                             |          |                         +-> results -> statistics -> report, comparison
                             |      aligners -> spans -> voices --+
                             +-> signal_checks -------------------+

Needs the extra `eval`; everything heavier is imported by the back end that was chosen by its name.
"""
