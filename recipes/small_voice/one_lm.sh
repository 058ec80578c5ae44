#!/usr/bin/env bash
# One GPU, one go: the language model of the codes that one_codec.sh has packed (CARRIED/codes.*). It runs on by itself, and
# what it has lies in WORK/results:   SECONDS_LM=1400 setsid bash one_lm.sh &
# See README.md.
# shellcheck source=recipes/small_voice/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"
exec >"$WORK/one.log" 2>&1
unpack a.tar.xz
unpack_recipes
RESULTS=$WORK/results SHAPE=${SHAPE:-d} BOOKS=${BOOKS:-12} SECONDS_LM=${SECONDS_LM:-1400} LM=(--validate-every 2000 --save-every 2000 --workers 10)
[[ $SMOKE == 1 ]] && SHAPE=tiny BOOKS=8 LM=(--rows 1024 --steps 12 --workers 1 --log-every 5 --validate-every 10 --save-every 10 --device cpu)
mkdir -p "$RESULTS"
"$PYTHON" -m small_voice.language_model "$WORK/untrained" --shape "$SHAPE" --n-vq "$BOOKS"
cat "$CARRIED"/codes.[0-9]* >"$WORK/codes.npz"
"$PYTHON" -m small_voice.pack_codes unpack "$WORK/codes.npz" "$WORK/encoded"
say "language model, $SECONDS_LM s"
"$PYTHON" -m torch.distributed.run --nproc-per-node 1 --master-port 29510 -m small_voice.train_lm "$WORK/encoded" "$WORK/untrained" \
  "$WORK/lm" --seconds "$SECONDS_LM" --steps 100000 --per-step 1 ${LM[@]+"${LM[@]}"} >"$WORK/lm-train.log" 2>&1 &
TRAINING=$!
keep_model() {
  [[ -s $WORK/lm/model/model.safetensors ]] && OUT=$RESULTS keep lm "$WORK/lm/model"
  (cd "$WORK" && find . -maxdepth 2 \( -name '*.log' -o -name log.jsonl \) | tar -czf "$RESULTS/logs.tgz" -T -)
}
while kill -0 "$TRAINING" 2>/dev/null; do
  sleep $((SMOKE == 1 ? 5 : 30))
  say "$("$PYTHON" -m small_voice.tell "$WORK/lm" "$SHAPE" || last "$WORK/lm-train.log")"
  keep_model
done
[[ -s $WORK/lm/model/model.safetensors ]] || { say "no model:"; grep -m 6 -E "Error|error:" "$WORK/lm-train.log"; tail -n 12 "$WORK/lm-train.log"; }
say "done"
touch "$WORK/.done"
