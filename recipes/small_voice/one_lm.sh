#!/usr/bin/env bash
# One GPU, one go: the language model of the codes that one_codec.sh has left on the machine, or that lie in
# CARRIED/codes-*.[0-9]*, each pack_codes's file in parts. It runs on by itself until ENDS_AT (seconds since 1970), tells
# in WORK/one-lm.log, and what it has lies in WORK/results.
#   ENDS_AT=$(($(date +%s) + 1500)) setsid bash one_lm.sh &
# BEGIN=DIR: of a model made before, else of nothing. SPEAKERS=7: so many processes make more speech meanwhile, which it
# goes on with from MORE_AT (seconds since 1970) on, in the codes of FROM. See README.md.
# shellcheck source=recipes/small_voice/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"
exec >"$WORK/one-lm.log" 2>&1
unpack a.tar.xz
unpack_recipes
RESULTS=$WORK/results SHAPE=${SHAPE:-d} BOOKS=${BOOKS:-12} EXAMPLES=${EXAMPLES:-2400000} SEED=${SEED:-3}
ENDS_AT=${ENDS_AT:-$((T0 + 1400))} SPEAKERS=${SPEAKERS:-0} MORE_AT=${MORE_AT:-$((T0 + 700))} GROWN=()
WORKERS=$((CORES - 1 - SPEAKERS)) # 4 were enough
LM=(--steps 100000 --per-step 1 --validate-every 1000 --save-every 2000 --workers $((WORKERS < 1 ? 1 : WORKERS > 6 ? 6 : WORKERS)))
EVERY=20 WAIT=90 # s from the speech's end to the codes' use
if [[ $SMOKE == 1 ]]; then
  SHAPE=tiny EXAMPLES=200 EVERY=5 WAIT=25
  LM=(--rows 1024 --per-step 1 --steps 8 --workers 1 --log-every 4 --validate-every 8 --save-every 4 --device cpu)
fi
mkdir -p "$RESULTS"
if ((SPEAKERS)) && [[ -z $FROM ]]; then
  say "SPEAKERS needs FROM: the codec of the codes, without its book of letters"
  exit 1
fi
until_at() { local s=$(($1 - $(date +%s))); echo $((s > 20 ? s : 20)); }
if ((SPEAKERS)); then
  "$PYTHON" -m small_voice.synthesize "$WORK/more" --hours 400 --seconds "$(until_at $((MORE_AT - WAIT)))" --seed "$SEED" \
    --processes "$SPEAKERS" >"$WORK/more.log" 2>&1 &
  SPEAKING=$!
fi
[[ -s $WORK/untrained/config.json ]] ||
  "$PYTHON" -m small_voice.language_model "$WORK/untrained" --shape "$SHAPE" --n-vq $((BOOKS + 1))

# packed: the files of codes that have been carried, each in one.
packed() {
  for first in "$CARRIED"/codes-*.00; do
    [[ -e $first ]] || continue
    cat "${first%.00}".[0-9]* >"$WORK/$(basename "${first%.00}").npz"
    echo "$WORK/$(basename "${first%.00}").npz"
  done
}
N_VQ=$("$PYTHON" -c "import json; print(json.load(open('$WORK/untrained/config.json'))['n_vq'])")
# prepare ENCODED: what training needs of a folder of codes.
prepare() {
  "$PYTHON" -m small_voice.alignment "$1"
  [[ -s $1/lengths-training-$N_VQ.npy ]] ||
    "$PYTHON" -m small_voice.measure_examples "$1" "$WORK/untrained" --examples "$EXAMPLES"
}
# more: the new speech, in codes, with the codes of before, in WORK/both.
more() {
  while kill -0 "$SPEAKING" 2>/dev/null; do sleep 2; done
  "$PYTHON" -m small_voice.encode "$WORK/more" "$FROM" "$WORK/encoded-more" --tokenizer "$WORK/untrained"
  "$PYTHON" -m small_voice.pack_codes pack "$WORK/encoded-more" "$WORK/codes-more.npz"
  [[ -s $WORK/codes-before.npz ]] || "$PYTHON" -m small_voice.pack_codes pack "$WORK/encoded" "$WORK/codes-before.npz"
  "$PYTHON" -m small_voice.pack_codes unpack "$WORK/codes-before.npz" "$WORK/codes-more.npz" "$WORK/both"
  prepare "$WORK/both"
  split -b 16000000 -d "$WORK/codes-more.npz" "$RESULTS/codes-more."
}
keep_model() {
  [[ -s $1/model/model.safetensors ]] && OUT=$RESULTS keep "$(basename "$1")" "$1/model"
  (cd "$WORK" && find . -maxdepth 2 \( -name '*.log' -o -name log.jsonl \) | tar -czf "$RESULTS/logs.tgz" -T -)
}
# train ENCODED BEGIN OUTPUT SECONDS ...
train() {
  say "language model $(basename "$3") of $(basename "$1") from $2, $4 s"
  "$PYTHON" -m torch.distributed.run --nproc-per-node 1 --master-port 29510 -m small_voice.train_lm "$1" "$2" "$3" \
    --seconds "$4" "${@:5}" ${LM[@]+"${LM[@]}"} >"$3-train.log" 2>&1 &
  local training=$! kept=0 made
  while kill -0 "$training" 2>/dev/null; do
    sleep "$EVERY"
    say "$("$PYTHON" -m small_voice.tell "$3" "$SHAPE" || last "$3-train.log")"
    made=$(stat -c %Y "$3/checkpoints" 2>/dev/null || echo 0)
    ((made == kept)) || { kept=$made && sleep 4 && keep_model "$3"; }
  done
  keep_model "$3"
  [[ -s $3/model/model.safetensors ]] || { say "no model:"; grep -m 6 -E "Error|error:" "$3-train.log"; tail -n 12 "$3-train.log"; exit 1; }
}

mapfile -t CODES < <(packed)
if [[ ! -s $WORK/encoded/codes.u16 ]]; then
  "$PYTHON" -m small_voice.pack_codes unpack "${CODES[@]}" "$WORK/encoded"
  ((${#CODES[@]} != 1)) || cp "${CODES[0]}" "$WORK/codes-before.npz"
fi
prepare "$WORK/encoded"
if ((SPEAKERS)); then
  more >"$WORK/more-codes.log" 2>&1 &
  PREPARING=$!
  train "$WORK/encoded" "${BEGIN:-$WORK/untrained}" "$WORK/lm-first" "$(until_at "$MORE_AT")" --decay-share 0.05
  wait "$PREPARING" || say "no more codes: $(last "$WORK/more-codes.log")"
  BEGIN=$WORK/lm-first/model GROWN=(--grown)
fi
ENCODED=$WORK/encoded
[[ ! -s $WORK/both/lengths-training-$N_VQ.npy ]] || ENCODED=$WORK/both
train "$ENCODED" "${BEGIN:-$WORK/untrained}" "$WORK/lm" "$(until_at "$ENDS_AT")" --decay-share 0.5 ${GROWN[@]+"${GROWN[@]}"}
say "done"
