#!/usr/bin/env bash
# Remakes the clips of this folder, with Debian's flite and sox. The voices are CMU Arctic's, free for any use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
say() { flite -voice "$1" -t "$3" -o "$2.wav" && sox "$2.wav" "$2.flac" && rm "$2.wav"; }
say rms rms_reference "The quick brown fox jumps over the lazy dog near the river."
say slt slt_reference "We went to the market early in the morning to buy some bread."
say rms rms_question "Good morning, did you sleep well last night?"
say rms rms_offer "Would you like some coffee before we leave?"
say slt slt_answer "I will call you when the report is ready."
say slt slt_wish "We should finish our work before lunch."
