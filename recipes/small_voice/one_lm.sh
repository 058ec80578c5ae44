#!/usr/bin/env bash
# One GPU, one go: the language model of the codes that one_codec.sh has left on the machine, or has packed (CARRIED/codes.*).
# Most of the time it learns the letters too that are spoken, which tell it where in the text it is; the rest without. It
# runs on by itself until ENDS_AT (seconds since 1970), tells in WORK/one-lm.log, and what it has lies in WORK/results.
#   ENDS_AT=$(($(date +%s) + 1500)) setsid bash one_lm.sh &
# BEGIN=DIR: of a model made before, else of nothing. See README.md.
# shellcheck source=recipes/small_voice/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"
exec >"$WORK/one-lm.log" 2>&1
unpack a.tar.xz
unpack_recipes
RESULTS=$WORK/results SHAPE=${SHAPE:-d} BOOKS=${BOOKS:-12} EXAMPLES=${EXAMPLES:-2400000}
ENDS_AT=${ENDS_AT:-$((T0 + 1400))} LETTERED=${LETTERED:-70} # of a hundred seconds
LM=(--steps 100000 --per-step 1 --validate-every 1000 --save-every 2000 --workers 12)
if [[ $SMOKE == 1 ]]; then
  SHAPE=tiny BOOKS=8 EXAMPLES=200
  LM=(--rows 1024 --per-step 1 --steps 8 --workers 1 --log-every 4 --validate-every 8 --save-every 8 --device cpu)
fi
mkdir -p "$RESULTS"
[[ -s $WORK/untrained/config.json ]] || "$PYTHON" -m small_voice.language_model "$WORK/untrained" --shape "$SHAPE" --n-vq "$BOOKS"
if [[ ! -s $WORK/encoded/codes.u16 ]]; then
  cat "$CARRIED"/codes.[0-9]* >"$WORK/codes.npz"
  "$PYTHON" -m small_voice.pack_codes unpack "$WORK/codes.npz" "$WORK/encoded"
fi
"$PYTHON" -m small_voice.alignment "$WORK/encoded"
N_VQ=$("$PYTHON" -c "import json; print(json.load(open('$WORK/untrained/config.json'))['n_vq'])")
[[ -s $WORK/encoded/lengths-training-$N_VQ.npy ]] ||
  "$PYTHON" -m small_voice.measure_examples "$WORK/encoded" "$WORK/untrained" --examples "$EXAMPLES"

keep_model() {
  [[ -s $1/model/model.safetensors ]] && OUT=$RESULTS keep "$(basename "$1")" "$1/model"
  (cd "$WORK" && find . -maxdepth 2 \( -name '*.log' -o -name log.jsonl \) | tar -czf "$RESULTS/logs.tgz" -T -)
}
# train BEGIN OUTPUT SECONDS ...
train() {
  say "language model $(basename "$2") from $1, $3 s"
  "$PYTHON" -m torch.distributed.run --nproc-per-node 1 --master-port 29510 -m small_voice.train_lm "$WORK/encoded" "$1" "$2" \
    --seconds "$3" "${@:4}" ${LM[@]+"${LM[@]}"} >"$2-train.log" 2>&1 &
  local training=$!
  while kill -0 "$training" 2>/dev/null; do
    sleep $((SMOKE == 1 ? 5 : 20))
    say "$("$PYTHON" -m small_voice.tell "$2" "$SHAPE" || last "$2-train.log")"
  done
  keep_model "$2"
  [[ -s $2/model/model.safetensors ]] || { say "no model:"; grep -m 6 -E "Error|error:" "$2-train.log"; tail -n 12 "$2-train.log"; exit 1; }
}
left() { local s=$((ENDS_AT - $(date +%s))); echo $((s > 20 ? s : 20)); }
"$PYTHON" -m small_voice.letter_channels add "${BEGIN:-$WORK/untrained}" "$WORK/lettered"
train "$WORK/lettered" "$WORK/lm-letters" $(($(left) * LETTERED / 100)) --letters 2 --decay-share 0.1
"$PYTHON" -m small_voice.letter_channels drop "$WORK/lm-letters/model" "$WORK/plain"
train "$WORK/plain" "$WORK/lm" "$(left)" --decay-share 0.7 --grown
say "done"
