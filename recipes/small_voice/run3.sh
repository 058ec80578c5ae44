#!/usr/bin/env bash
# The language model of a codec, and what it says. On a machine that has speech already (codec.sh, or this before), that
# is used; else it is made first. A second command goes on with the model that the first has left. See README.md.
# CODEC: a folder in the published layout; default the one that codec.sh has left.
# shellcheck source=recipes/small_voice/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"
PART=1
while [[ -e $WORK/.lm-$PART ]]; do PART=$((PART + 1)); done
touch "$WORK/.lm-$PART"
exec > >(tee "$WORK/lm-$PART.log") 2>&1
unpack a.tar.xz
unpack_recipes
unpack b.tar.xz
say "part $PART, cores $CORES, GPUs $GPUS"

HOURS=400 SPEECH_S=${SPEECH_S:-190} SPEAKERS=$((CORES > 16 ? CORES - 8 : CORES)) EXAMPLES=3000000 SENTENCES=50 DIALOGUES=12
TEMPERATURES=(0.7) LM=() SHAPE=${SHAPE:-} EACH=$((GPUS > 0 ? GPUS : 1)) SPEAK=45 HEAR=110
if [[ $SMOKE == 1 && $GPUS -gt 0 ]]; then
  HOURS=6 SPEECH_S=15 EXAMPLES=100000 SENTENCES=8 DIALOGUES=2
  LM=(--log-every 20 --validate-every 200 --save-every 200)
elif [[ $SMOKE == 1 ]]; then
  HOURS=0.06 SPEECH_S=40 EXAMPLES=200 SENTENCES=2 DIALOGUES=1 SHAPE=tiny
  LM=(--rows 1024 --per-step 2 --steps 12 --workers 1 --log-every 5 --validate-every 10 --save-every 10 --device cpu)
fi
[[ -n $CODEC ]] || CODEC=$WORK/codec
[[ -s $CODEC/model.safetensors ]] || { say "no codec in $CODEC; CODEC=DIR says where one is"; exit 1; }
read -r BOOKS SIZE < <("$PYTHON" -c "
import json; q = json.load(open('$CODEC/config.json'))['quantizer_kwargs']; print(q['num_quantizers'], q['codebook_size'])")
[[ -n $SHAPE ]] || { SHAPE=a; ((BOOKS > 8)) && SHAPE=d; ((SIZE > 512)) && SHAPE=c; } # more of them, fewer layers: the pair has 65 MB
if [[ ! -e $WORK/.speech-lm ]]; then
  touch "$WORK/.speech-lm"
  # With another seed than the codec's, and until the end of this command: a second one has all of it.
  setsid "$PYTHON" -m small_voice.synthesize "$WORK/speech-lm" --hours "$HOURS" --seconds $((LIMIT - 30)) --seed 2 \
    --processes "$SPEAKERS" >"$WORK/speech-lm.log" 2>&1 &
  if [[ $GPUS -gt 0 ]]; then
    "$PYTHON" -m small_voice.warm_compile --shape "$SHAPE" --codebook-size "$SIZE" --n-vq "$BOOKS" >"$WORK/warm.log" 2>&1 &
  fi
  while [[ $(elapsed) -lt $SPEECH_S ]] && ! grep -q " by 0 processes" "$WORK/speech-lm.log"; do
    sleep $((SMOKE == 1 ? 2 : 10))
  done
fi
last "$WORK/speech-lm.log" "$WORK/warm.log"

say "encode"
BEGIN=$WORK/untrained
"$PYTHON" -m small_voice.language_model "$WORK/untrained" --shape "$SHAPE" --codebook-size "$SIZE" --n-vq "$BOOKS"
if [[ -s $WORK/lm/model/model.safetensors ]]; then # of a command before this one
  rm -rf "$WORK/begin" && cp -r "$WORK/lm/model" "$WORK/begin"
  BEGIN=$WORK/begin
fi
rm -rf "$WORK/lm"
BYTES="$(du -sb "$WORK/speech-lm" | cut -f1) $(cksum <"$CODEC/model.safetensors")"
if [[ $(cat "$WORK/.encoded" 2>/dev/null) != "$BYTES" ]]; then
  rm -rf "$WORK/encoded"
  "$PYTHON" -m small_voice.encode "$WORK/speech-lm" "$CODEC" "$WORK/encoded" --tokenizer "$WORK/untrained"
  "$PYTHON" -m small_voice.measure_examples "$WORK/encoded" "$WORK/untrained" --examples "$EXAMPLES"
  echo "$BYTES" >"$WORK/.encoded"
fi

SECONDS_LM=$((LIMIT - $(elapsed) - 160))
((SECONDS_LM > 20)) || SECONDS_LM=20
say "language model $SHAPE from $(basename "$BEGIN"), $SECONDS_LM s"
timeout -k 5 $((SECONDS_LM + 45)) "$PYTHON" -m torch.distributed.run --nproc-per-node "$EACH" --master-port 29510 \
  -m small_voice.train_lm "$WORK/encoded" "$BEGIN" "$WORK/lm" --variant a --seconds "$SECONDS_LM" --per-step "$EACH" \
  ${LM[@]+"${LM[@]}"} >"$WORK/lm-train.log" 2>&1 &
TRAINING=$!
keep_model() {
  [[ -s $WORK/lm/model/model.safetensors ]] && keep lm "$WORK/lm/model"
  (cd "$WORK" && find . -maxdepth 3 \( -name '*.log' -o -name log.jsonl \) | tar -czf "$OUT/logs.tgz" -T -)
}
kept=$(date +%s)
while kill -0 "$TRAINING" 2>/dev/null; do
  sleep $((SMOKE == 1 ? 5 : 20))
  say "--"
  "$PYTHON" -m small_voice.tell "$WORK/lm" "$SHAPE" || last "$WORK/lm-train.log"
  if [[ $(($(date +%s) - kept)) -gt 150 ]]; then keep_model; kept=$(date +%s); fi
done
keep_model
if [[ ! -s $WORK/lm/model/model.safetensors ]]; then
  say "no model:"; grep -m 6 -E "Error|error:" "$WORK/lm-train.log"; tail -n 12 "$WORK/lm-train.log"; exit 1
fi

left=$((LIMIT - $(elapsed) - 12))
say "what it says, $left s"
timeout -k 3 $((left < HEAR ? left : HEAR)) "$PYTHON" -m small_voice.evaluate_lm "${SPEAKS_WITH:-$CODEC}" "$WORK/heard" "$WORK/lm/model" \
  --sentences "$SENTENCES" --dialogues "$DIALOGUES" --temperatures "${TEMPERATURES[@]}" --seconds "$SPEAK" ||
  say "it was not heard to the end"
mkdir -p "$WORK/spoken"
cp "$WORK/heard/figures.json" "$WORK/spoken/" 2>/dev/null
for kind in sentence dialogue; do
  find "$WORK/heard" -name "*-$kind-*.wav" 2>/dev/null | sort -V | head -n 12 | xargs -r cp -t "$WORK/spoken/"
done
tar -C "$WORK" -czf "$OUT/wavs.tgz" spoken
keep_model
say "done"
ls -l "$OUT"
