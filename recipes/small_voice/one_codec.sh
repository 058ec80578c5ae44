#!/usr/bin/env bash
# One GPU, one go: speech on all cores; a codec from FROM, whole, then its decoder alone with discriminators; the codes of
# all the speech in one file for one_lm.sh. It runs on by itself, and what it has lies in WORK/results:
#   FROM=DIR setsid bash one_codec.sh &
# See README.md. Times are seconds since the start.
# shellcheck source=recipes/small_voice/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"
exec >"$WORK/one.log" 2>&1
unpack a.tar.xz
unpack_recipes
HOURS=${HOURS:-165} FIRST=${FIRST:-400} JOINT=${JOINT:-850} ENDS=${ENDS:-1450} EXAMPLES=${EXAMPLES:-2400000}
FIRST_HOURS=${FIRST_HOURS:-14} SPEAKERS=$((CORES > 4 ? CORES - 3 : 1)) RESULTS=$WORK/results MORE=() DEVICE=cuda SENTENCES=50
VARIANT=${VARIANT:-r}
if [[ $SMOKE == 1 ]]; then
  HOURS=0.05 FIRST_HOURS=0.01 EXAMPLES=200 DEVICE=cpu SENTENCES=2 VARIANT=tiny
  MORE=(--batch 2 --frames 16 --tell-s 5 --save-s 15 --waits-s 5 --mode eager --device cpu)
fi
mkdir -p "$RESULTS"
say "cores $CORES, $($PYTHON -c 'import sys, torch; print(sys.version.split()[0], torch.__version__)')"
"$PYTHON" -m small_voice.synthesize "$WORK/speech" --hours "$HOURS" --seconds $((ENDS > 600 ? ENDS - 300 : 40)) --seed 2 --processes "$SPEAKERS" \
  >"$WORK/speech.log" 2>&1 &
SPEAKING=$!

# train NAME VARIANT HOURS TOTAL ENDS ...: goes on where NAME ended.
train() {
  local name=$1 variant=$2 hours=$3 total=$4 ends=$5
  shift 5
  "$PYTHON" -m torch.distributed.run --nproc-per-node 1 --master-port 29610 -m small_voice.train_codec "$WORK/speech" \
    "$WORK/codecs/$name" --variant "$variant" --hours "$hours" --seconds 9999 --total "$total" --ends $((T0 + ends)) "$@" \
    ${MORE[@]+"${MORE[@]}"} >>"$WORK/codec-$name.log" 2>&1
}
listen() {
  timeout -k 3 "$1" "$PYTHON" -m small_voice.listen "$WORK/codecs" "$WORK/codec" --sentences "$SENTENCES" --device "$DEVICE" --wavs "$WORK/wavs" \
    --processes 8 "${@:2}" >>"$WORK/listen.log" 2>&1
}
FROM_WEIGHTS=()
[[ -n $FROM ]] && FROM_WEIGHTS=(--weights "$FROM")
# The first seconds have little speech: begin with it, and again with what there is.
say "codec, $FIRST_HOURS h"
train whole "$VARIANT" "$FIRST_HOURS" $((JOINT - 110)) "$FIRST" --waits-s 150 --judges-from 2 ${FROM_WEIGHTS[@]+"${FROM_WEIGHTS[@]}"}
say "codec, what there is"
train whole "$VARIANT" "$HOURS" $((JOINT - 110)) "$JOINT" --waits-s 0 --judges-from 2 ${FROM_WEIGHTS[@]+"${FROM_WEIGHTS[@]}"}
rm -rf "$WORK/frozen" && cp -r "$WORK/codecs/whole/codec" "$WORK/frozen"
unpack b.tar.xz
say "decoder"
train decoder decoder "$HOURS" $((ENDS - JOINT - 40)) "$ENDS" --waits-s 0 --weights "$WORK/frozen" --keep-codes \
  --listeners "$WORK/codecs/whole/state.pt" --judges-from 0 &
DECODING=$!
listen $((ENDS - JOINT)) --every 150 --ends $((T0 + ENDS)) &
LISTENING=$!
while kill -0 "$SPEAKING" 2>/dev/null; do sleep 2; done
say "codes: $(tail -n 1 "$WORK/speech.log")"
read -r BOOKS SIZE < <("$PYTHON" -c "
import json; q = json.load(open('$WORK/frozen/config.json'))['quantizer_kwargs']; print(q['num_quantizers'], q['codebook_size'])")
"$PYTHON" -m small_voice.language_model "$WORK/untrained" --shape d --codebook-size "$SIZE" --n-vq "$BOOKS"
"$PYTHON" -m small_voice.encode "$WORK/speech" "$WORK/frozen" "$WORK/encoded" --tokenizer "$WORK/untrained"
"$PYTHON" -m small_voice.measure_examples "$WORK/encoded" "$WORK/untrained" --examples "$EXAMPLES"
"$PYTHON" -m small_voice.pack_codes pack "$WORK/encoded" "$WORK/codes.npz"
split -b 16000000 -d "$WORK/codes.npz" "$RESULTS/codes."
say "packed: $(du -sh "$WORK/codes.npz" | cut -f1)"
touch "$WORK/.codes-packed"
wait "$DECODING"
kill "$LISTENING" 2>/dev/null
listen 60 --once
OUT=$RESULTS keep codec "$WORK/codec"
OUT=$RESULTS keep last "$WORK/codecs/decoder/codec"
tar -C "$WORK" -czf "$RESULTS/wavs.tgz" wavs
tar -C "$WORK" -czf "$RESULTS/logs.tgz" one.log codec-whole.log codec-decoder.log listen.log speech.log
say "done"
touch "$WORK/.done"
