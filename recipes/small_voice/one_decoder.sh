#!/usr/bin/env bash
# One GPU, one go: the decoder of the codec FROM alone, on speech that it makes first; codes, and a language model that has
# learnt them, stay valid. It runs on by itself, tells in WORK/one-decoder.log, and what it has lies in WORK/results:
#   FROM=DIR setsid bash one_decoder.sh &
# See README.md. Times are seconds since the start.
# shellcheck source=recipes/small_voice/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"
exec >"$WORK/one-decoder.log" 2>&1
unpack a.tar.xz
unpack_recipes
HOURS=${HOURS:-16} BEGINS=${BEGINS:-90} ENDS=${ENDS:-620} HEARS=${HEARS:-60} RESULTS=$WORK/results SEED=${SEED:-5}
SPEAKERS=$((CORES > 1 ? CORES - 1 : 1)) MORE=() DEVICE=cuda SENTENCES=${SENTENCES:-50}
if [[ $SMOKE == 1 ]]; then
  HOURS=0.01 DEVICE=cpu SENTENCES=2 MORE=(--batch 2 --frames 16 --tell-s 5 --save-s 15 --mode eager --device cpu)
fi
mkdir -p "$RESULTS"
say "cores $CORES, speech: $HOURS h, at most $BEGINS s"
"$PYTHON" -m small_voice.synthesize "$WORK/speech" --hours "$HOURS" --seconds "$BEGINS" --seed "$SEED" \
  --processes "$SPEAKERS" >"$WORK/speech.log" 2>&1
say "$(last "$WORK/speech.log")"
unpack b.tar.xz &
"$PYTHON" -m torch.distributed.run --nproc-per-node 1 --master-port 29610 -m small_voice.train_codec "$WORK/speech" \
  "$WORK/codecs/decoder" --variant decoder --weights "$FROM" --keep-codes --hours 999 --waits-s 0 --seconds 9999 \
  --total $((ENDS > 160 ? ENDS - BEGINS - 40 : ENDS)) --ends $((T0 + ENDS)) --judges-from 2 \
  ${MORE[@]+"${MORE[@]}"} >"$WORK/codec.log" 2>&1
wait
OUT=$RESULTS keep codec "$WORK/codecs/decoder/codec"
say "$(last "$WORK/codec.log")"
mkdir -p "$WORK/codecs/before" && ln -sfn "$(realpath "$FROM")" "$WORK/codecs/before/codec" # is heard too
timeout -k 3 "$HEARS" "$PYTHON" -m small_voice.listen "$WORK/codecs" "$WORK/codec" --sentences "$SENTENCES" --device "$DEVICE" \
  --wavs "$WORK/wavs" --processes "$CORES" --once >"$WORK/listen.log" 2>&1
say "done: $(last "$WORK/listen.log")"
