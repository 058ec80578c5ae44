#!/usr/bin/env bash
# The codes of a codec stay as they are; half the GPUs go on with its decoder, the others train a language model of them.
# The codec is the one that codec.sh has left on the machine, or FROM=DIR. Again: both go on. See README.md.
# shellcheck source=recipes/small_voice/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"
FROZEN=$WORK/frozen
if [[ -n $FROM && ! -e $WORK/codec ]]; then
  unpack a.tar.xz
  cp -r "$FROM" "$WORK/codec" && rm -f "$WORK/codec/choice.json"
fi
[[ -s $WORK/codec/model.safetensors ]] || { say "codec.sh comes first"; exit 1; }
if [[ ! -e $FROZEN ]]; then
  cp -r "$WORK/codec" "$FROZEN"
  [[ ! -e $WORK/codecs ]] || mv "$WORK/codecs" "$WORK/codecs-first"
fi
NAME=$("$PYTHON" -c "import json; print(json.load(open('$FROZEN/figures.json'))['variant'])")
LISTENERS=$WORK/codecs-first/$NAME/state.pt
[[ -e $LISTENERS ]] || LISTENERS=
DECODER_GPUS=${DECODER_GPUS:-$((GPUS / 2))} # the first ones; the others train the model
GPUS=$DECODER_GPUS BESIDE=1 CODECS=decoder FROM=$FROZEN KEEP_CODES=1 \
  LISTENERS=$LISTENERS JUDGES_FROM=${JUDGES_FROM:-0.5} LIMIT=$LIMIT OUT=$OUT WORK=$WORK bash "$CARRIED/codec.sh" \
  >"$WORK/both-codec.log" 2>&1 &
CODEC_RUN=$!
CUDA_VISIBLE_DEVICES=$(seq -s, "$DECODER_GPUS" $((GPUS - 1))) GPUS=$((GPUS - DECODER_GPUS)) CODEC=$FROZEN SPEAKS_WITH=$WORK/codec LIMIT=$LIMIT OUT=$OUT WORK=$WORK bash "$CARRIED/run3.sh"
wait "$CODEC_RUN"
grep -E "decoder|listen" "$WORK/both-codec.log" | tail -n 40 | cut -c1-330
