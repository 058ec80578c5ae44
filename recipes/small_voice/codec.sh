#!/usr/bin/env bash
# Speech on all cores, codecs on all GPUs, a recogniser that listens to them. The first command of a machine begins, a
# second goes on where it ended:   bash codec.sh   (see README.md; its settings stand there)
# shellcheck source=recipes/small_voice/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"
PART=1
[[ -e $WORK/.codec-1 ]] && PART=2
touch "$WORK/.codec-$PART"
exec > >(tee "$OUT/codec-$PART.log") 2>&1
unpack a.tar.xz
unpack_recipes
unpack b.tar.xz &
UNPACKING=$!
say "part $PART, cores $CORES, GPUs $GPUS, $($PYTHON -c 'import sys, torch; print(sys.version.split()[0], torch.__version__)')"

CODECS=${CODECS:-"p q"}            # variants; the GPUs are divided among them
SECONDS_ALL=${SECONDS_ALL:-$((2 * LIMIT - 220))} # of training, both commands together: the schedule's length
HOURS=${HOURS:-40} SPEAKERS=$((CORES > 16 ? CORES - 10 : 1)) EVERY=120 SENTENCES=50 MORE=() DEVICE=cuda
if [[ $SMOKE == 1 && $GPUS -gt 0 ]]; then # real shapes, little speech
  HOURS=4 EVERY=30 SECONDS_ALL=$((LIMIT - 75)) MORE=(--save-s 20 --tell-s 10)
elif [[ $SMOKE == 1 ]]; then
  [[ ${BESIDE:-0} == 1 ]] || CODECS=tiny
  HOURS=0.05 EVERY=20 SENTENCES=2 DEVICE=cpu SECONDS_ALL=60
  MORE=(--batch 2 --frames 16 --tell-s 5 --save-s 15 --waits-s 30 --mode eager --device cpu)
fi
EACH=$((GPUS / $(wc -w <<<"$CODECS")))
((EACH > 0)) || EACH=1
ENDS=$((T0 + LIMIT - 60)) # 60 s: the last look of the recogniser, files
if [[ ! -e $WORK/speech.log ]]; then
  "$PYTHON" -m small_voice.synthesize "$WORK/speech" --hours "$HOURS" --seconds 150 --processes "$SPEAKERS" >"$WORK/speech.log" 2>&1 &
  SPEAKING=$!
  if [[ -n ${SPEECH_FOR_LM:-} ]]; then # hours of it, for the command that comes next
    touch "$WORK/.speech-lm"
    if [[ $GPUS -gt 0 ]]; then # while there is no speech yet
      CUDA_VISIBLE_DEVICES=0 "$PYTHON" -m small_voice.warm_compile --shape a --n-vq 8 >"$WORK/warm.log" 2>&1 &
      CUDA_VISIBLE_DEVICES=$((GPUS - 1)) "$PYTHON" -m small_voice.warm_compile --shape d --n-vq 12 >"$WORK/warm-d.log" 2>&1 &
    fi
    while kill -0 "$SPEAKING" 2>/dev/null; do sleep 1; done && exec setsid "$PYTHON" -m small_voice.synthesize "$WORK/speech-lm" \
      --hours "$SPEECH_FOR_LM" --seconds $((LIMIT > 250 ? LIMIT - 150 : 60)) --seed 2 --processes "$SPEAKERS" >"$WORK/speech-lm.log" 2>&1 &
  fi
fi

# train NAME FIRST PORT: in graphs; where they fail at once, compiled; where that fails, neither.
train() {
  local begun mode weights=()
  [[ -n $FROM ]] && weights=(--weights "$FROM")
  [[ ${KEEP_CODES:-0} == 1 ]] && weights+=(--keep-codes)
  [[ -n ${LISTENERS:-} ]] && weights+=(--listeners "$LISTENERS")
  for mode in graph compiled eager; do
    [[ $mode != graph && $(($(date +%s) + 60)) -gt $ENDS ]] && return 1
    begun=$(date +%s)
    # A later --mode would win, so the smoke run's own comes last.
    CUDA_VISIBLE_DEVICES=$(seq -s, "$2" $(($2 + EACH - 1))) timeout -k 5 $((ENDS + 25 > begun ? ENDS + 25 - begun : 1)) \
      "$PYTHON" -m torch.distributed.run --nproc-per-node "$EACH" --master-port "$3" -m small_voice.train_codec \
      "$WORK/speech" "$WORK/codecs/$1" --variant "$1" --hours "$HOURS" --seconds 600 --total "$SECONDS_ALL" --ends "$ENDS" \
      --judges-from "${JUDGES_FROM:-0.4}" ${weights[@]+"${weights[@]}"} --mode "$mode" ${MORE[@]+"${MORE[@]}"} && return
    echo "codec $1: $mode ended after $(($(date +%s) - begun)) s"
  done
}
pids=() logs=() i=0
for v in $CODECS; do
  logs+=("$WORK/codec-$v-$PART.log")
  train "$v" $((i * EACH)) $((29610 + i)) >"${logs[-1]}" 2>&1 &
  pids+=($!)
  i=$((i + 1))
done
wait "$UNPACKING"
listen() {
  "$PYTHON" -m small_voice.listen "$WORK/codecs" "$WORK/codec" --sentences "$SENTENCES" --device "$DEVICE" --wavs "$WORK/wavs" "$@"
}
listen --every "$EVERY" --ends "$ENDS" >"$WORK/listen.log" 2>&1 &
LISTENING=$!

keep_best() {
  [[ -e $WORK/codec/model.safetensors ]] && keep codec "$WORK/codec"
  local last=$WORK/codecs/${CODECS%% *}/codec
  [[ ${KEEP_LAST:-0} == 1 && -e $last/model.safetensors ]] && keep last "$last"
  [[ ${BESIDE:-0} == 1 ]] && return # the other command keeps what else there is
  tar -C "$WORK" -czf "$OUT/wavs.tgz" wavs
  (cd "$WORK" && find . -maxdepth 3 \( -name '*.log' -o -name figures.json -o -name choice.json \) | tar -czf "$OUT/logs.tgz" -T -)
}
running() { for p in "$@"; do kill -0 "$p" 2>/dev/null && return 0; done; return 1; }
kept=$(date +%s)
while running "${pids[@]}"; do
  sleep $((SMOKE == 1 ? 5 : 20))
  say "--"
  last "$WORK/speech.log" "$WORK/speech-lm.log" "${logs[@]}" "$WORK/listen.log"
  if [[ $(($(date +%s) - kept)) -gt 120 ]]; then keep_best; kept=$(date +%s); fi
done
for log in "${logs[@]}"; do
  grep -q saved "$log" || { say "$log has saved nothing:"; grep -m 4 -E "Error|error:" "$log"; tail -n 15 "$log"; }
done
kill "$LISTENING" 2>/dev/null
wait "$LISTENING" 2>/dev/null
left=$((LIMIT - $(elapsed) - 8))
((left > 5)) && timeout "$left" bash -c "$(declare -f listen); $(declare -p WORK PYTHON SENTENCES DEVICE); listen --once --processes $CORES" >>"$WORK/listen.log" 2>&1
keep_best
say "done"
grep -h "listen:" "$WORK/listen.log"
ls -l "$OUT"
