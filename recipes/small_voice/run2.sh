#!/usr/bin/env bash
# The best codec chosen by ear, all speech encoded, two language models, what they say. See README.md.
# shellcheck source=recipes/small_voice/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"
exec > >(tee "$OUT/run2.log") 2>&1
unpack a.tar.xz
unpack b.tar.xz
say "cores $CORES, GPUs $GPUS"
pkill_speech() { [[ -s $WORK/speech.pid ]] && kill "$(cat "$WORK/speech.pid")" 2>/dev/null; }
last "$WORK/speech.log"

EXAMPLES=3000000 SENTENCES=50 DIALOGUES=12 TEMPERATURES=(0.6 0.9) LM=() SHAPE=a VARIANTS=(a b) EACH=2 SPEAK=60
if [[ $SMOKE == 1 && $GPUS -gt 0 ]]; then
  EXAMPLES=100000 SENTENCES=8 DIALOGUES=2 TEMPERATURES=(0.8) VARIANTS=(a)
  [[ $GPUS -gt 1 ]] || EACH=1
  LM=(--per-step "$EACH" --log-every 20 --validate-every 200 --save-every 200)
elif [[ $SMOKE == 1 ]]; then
  EXAMPLES=200 SENTENCES=2 DIALOGUES=1 TEMPERATURES=(0.8) SHAPE=tiny VARIANTS=(a)
  LM=(--rows 1024 --per-step 2 --steps 12 --workers 1 --log-every 5 --validate-every 10 --save-every 10)
fi
[[ $GPUS -gt 0 ]] || LM+=(--device cpu)

say "codecs by ear"
timeout 100 "$PYTHON" -m small_voice.evaluate_codec "$WORK/codecs" "$WORK/codec" --sentences "$SENTENCES" --wavs "$WORK/wavs" ||
  { say "not heard; by spectrum"; "$PYTHON" -m small_voice.pick "$WORK/codecs" "$WORK/codec"; }
keep codec "$WORK/codec"
SIZE=$("$PYTHON" -c "import json; print(json.load(open('$WORK/codec/config.json'))['quantizer_kwargs']['codebook_size'])")

say "encode"
"$PYTHON" -m small_voice.language_model "$WORK/untrained" --shape "$SHAPE" --codebook-size "$SIZE"
"$PYTHON" -m small_voice.encode "$WORK/speech" "$WORK/codec" "$WORK/encoded" --tokenizer "$WORK/untrained"
pkill_speech
"$PYTHON" -m small_voice.measure_examples "$WORK/encoded" "$WORK/untrained" --examples "$EXAMPLES"

SECONDS_LM=$((LIMIT - $(elapsed) - 150))
((SECONDS_LM > 20)) || SECONDS_LM=20
say "language models, $SECONDS_LM s"
pids=() logs=()
for i in "${!VARIANTS[@]}"; do
  v=${VARIANTS[$i]}
  first=$((i * EACH))
  rm -rf "$WORK/lm/$v"
  logs+=("$WORK/lm-$v.log")
  CUDA_VISIBLE_DEVICES=$(seq -s, $first $((first + EACH - 1))) setsid "$PYTHON" -m torch.distributed.run \
    --nproc-per-node "$EACH" --master-port $((29510 + i)) -m small_voice.train_lm "$WORK/encoded" "$WORK/untrained" \
    "$WORK/lm/$v" --variant "$v" --seconds "$SECONDS_LM" ${LM[@]+"${LM[@]}"} >"${logs[-1]}" 2>&1 &
  pids+=($!)
done
keep_models() {
  for v in "${VARIANTS[@]}"; do [[ -d $WORK/lm/$v/model ]] && keep "lm-$v" "$WORK/lm/$v/model"; done
  (cd "$WORK" && find . -name '*.log' -o -name log.jsonl | tar -czf "$OUT/logs2.tgz" -T -)
}
kept=$(date +%s)
STOP=$((LIMIT - 85)) # whatever hangs is left behind
while [[ $(elapsed) -lt $STOP ]] && { running=0; for p in "${pids[@]}"; do kill -0 "$p" 2>/dev/null && running=1; done; [[ $running == 1 ]]; }; do
  sleep $((SMOKE == 1 ? 5 : 20))
  say "--"
  for i in "${!VARIANTS[@]}"; do
    "$PYTHON" -m small_voice.tell "$WORK/lm/${VARIANTS[$i]}" "${VARIANTS[$i]}" || last "${logs[$i]}"
  done
  if [[ $(($(date +%s) - kept)) -gt 100 ]]; then keep_models; kept=$(date +%s); fi
done
for p in "${pids[@]}"; do kill -- "-$p" 2>/dev/null; done
keep_models
models=()
for i in "${!VARIANTS[@]}"; do
  if [[ -s $WORK/lm/${VARIANTS[$i]}/model/model.safetensors ]]; then models+=("$WORK/lm/${VARIANTS[$i]}/model")
  else say "${logs[$i]} has left no model:"; grep -m 6 -E "Error|error:" "${logs[$i]}"; tail -n 12 "${logs[$i]}"; fi
done

left=$((LIMIT - $(elapsed) - 45))
say "what they say"
if [[ ${#models[@]} -gt 0 && $left -gt 10 ]]; then
  "$PYTHON" -m small_voice.evaluate_lm "$WORK/codec" "$WORK/heard" "${models[@]}" --sentences "$SENTENCES" \
    --dialogues "$DIALOGUES" --temperatures "${TEMPERATURES[@]}" --seconds $((left < SPEAK ? left : SPEAK))
  cp "$WORK"/heard/figures.json "$WORK/wavs/" 2>/dev/null
  for kind in sentence dialogue; do
    find "$WORK/heard" -name "*-${TEMPERATURES[0]}-$kind-*.wav" | sort -V | head -n 16 | xargs -r cp -t "$WORK/wavs/"
  done
  "$PYTHON" -c "from pathlib import Path; from small_voice.references import write_references as w; w(Path('$WORK/wavs/voices'))"
  tar -C "$WORK" -czf "$OUT/wavs.tgz" wavs
fi
say "done"
ls -l "$OUT"
