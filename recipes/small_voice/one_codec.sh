#!/usr/bin/env bash
# One GPU, one go: speech on all cores; a codec from FROM (or from nothing); the codes of all the speech, in one file that
# another machine can take. It runs on by itself, tells in WORK/one-codec.log, and what it has lies in WORK/results:
#   FROM=DIR setsid bash -c "bash one_codec.sh; bash one_lm.sh" &
# See README.md. Times are seconds since the start.
# shellcheck source=recipes/small_voice/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"
exec >"$WORK/one-codec.log" 2>&1
unpack a.tar.xz
unpack_recipes
HOURS=${HOURS:-165} FIRST=${FIRST:-400} JOINT=${JOINT:-850} SHAPE=${SHAPE:-d}
FIRST_HOURS=${FIRST_HOURS:-14} SPEAKERS=$((CORES > 4 ? CORES - 3 : 1)) RESULTS=$WORK/results MORE=() DEVICE=cuda SENTENCES=50
VARIANT=${VARIANT:-r}
if [[ $SMOKE == 1 ]]; then
  HOURS=0.05 FIRST_HOURS=0.01 DEVICE=cpu SENTENCES=2 VARIANT=tiny SHAPE=tiny
  MORE=(--batch 2 --frames 16 --tell-s 5 --save-s 15 --waits-s 5 --mode eager --device cpu)
fi
mkdir -p "$RESULTS"
say "cores $CORES, $($PYTHON -c 'import sys, torch; print(sys.version.split()[0], torch.__version__)')"
"$PYTHON" -m small_voice.synthesize "$WORK/speech" --hours "$HOURS" --seconds "$JOINT" --seed 2 --processes "$SPEAKERS" \
  >"$WORK/speech.log" 2>&1 &
SPEAKING=$!
if [[ $SMOKE != 1 ]]; then # what one_lm.sh will need, while there is no speech yet
  "$PYTHON" -m small_voice.warm_compile --shape "$SHAPE" --n-vq 13 >"$WORK/warm.log" 2>&1 &
fi

# train HOURS ENDS ...: goes on where it ended; the schedule is as long as both parts.
train() {
  local hours=$1 ends=$2 weights=()
  [[ -n $FROM ]] && weights=(--weights "$FROM")
  "$PYTHON" -m torch.distributed.run --nproc-per-node 1 --master-port 29610 -m small_voice.train_codec "$WORK/speech" \
    "$WORK/codecs/whole" --variant "$VARIANT" --hours "$hours" --seconds 9999 --total $((JOINT > 200 ? JOINT - 110 : JOINT)) \
    --ends $((T0 + ends)) --judges-from 2 "${@:3}" ${weights[@]+"${weights[@]}"} ${MORE[@]+"${MORE[@]}"} >>"$WORK/codec.log" 2>&1
}
# The first seconds have little speech: begin with it, and again with what there is.
say "codec, $FIRST_HOURS h"
train "$FIRST_HOURS" "$FIRST" --waits-s 150
say "codec, what there is"
train "$HOURS" "$JOINT" --waits-s 0
unpack b.tar.xz
timeout -k 3 90 "$PYTHON" -m small_voice.listen "$WORK/codecs" "$WORK/codec" --sentences "$SENTENCES" --device "$DEVICE" \
  --wavs "$WORK/wavs" --processes $((CORES < 8 ? CORES : 8)) --once >"$WORK/listen.log" 2>&1 &
LISTENING=$!
FROZEN=$WORK/codecs/whole/codec
OUT=$RESULTS keep codec "$FROZEN"
while kill -0 "$SPEAKING" 2>/dev/null; do sleep 2; done
say "codes: $(tail -n 1 "$WORK/speech.log")"
read -r BOOKS SIZE < <("$PYTHON" -c "
import json; q = json.load(open('$FROZEN/config.json'))['quantizer_kwargs']; print(q['num_quantizers'], q['codebook_size'])")
"$PYTHON" -m small_voice.language_model "$WORK/untrained" --shape "$SHAPE" --codebook-size "$SIZE" --n-vq $((BOOKS + 1))
"$PYTHON" -m small_voice.encode "$WORK/speech" "$FROZEN" "$WORK/encoded" --tokenizer "$WORK/untrained"
"$PYTHON" -m small_voice.pack_codes pack "$WORK/encoded" "$WORK/codes-whole.npz"
split -b 16000000 -d "$WORK/codes-whole.npz" "$RESULTS/codes-whole."
say "packed: $(du -sh "$WORK/codes-whole.npz" | cut -f1)"
wait "$LISTENING"
tar -C "$WORK" -czf "$RESULTS/wavs.tgz" wavs
say "done: $(tail -n 1 "$WORK/listen.log")"
