#!/usr/bin/env bash
# Speech on all cores, and four codecs at once: the first command of the machine. See README.md.
# shellcheck source=recipes/small_voice/machine.sh
source "$(dirname "${BASH_SOURCE[0]}")/machine.sh"
exec > >(tee "$OUT/run1.log") 2>&1
unpack a.tar.xz
say "cores $CORES, GPUs $GPUS, $($PYTHON -c 'import sys, torch; print(sys.version.split()[0], torch.__version__)')"
df -h "$WORK" | tail -1

HOURS=400 CODEC_HOURS=24 SPEAKERS=$((CORES > 16 ? CORES - 8 : CORES > 2 ? CORES - 4 : 1)) MORE=() VARIANTS=(a b c d)
if [[ $SMOKE == 1 && $GPUS -gt 0 ]]; then # real shapes, little speech
  HOURS=6 CODEC_HOURS=1.5 VARIANTS=(a b) MORE=(--save-s 20 --tell-s 10)
elif [[ $SMOKE == 1 ]]; then
  HOURS=0.06 CODEC_HOURS=0.05 VARIANTS=(tiny) MORE=(--batch 4 --frames 16 --tell-s 5 --save-s 10 --judges-from 0.7)
fi
setsid "$PYTHON" -m small_voice.synthesize "$WORK/speech" --hours "$HOURS" --seconds 560 --processes "$SPEAKERS" \
  >"$WORK/speech.log" 2>&1 &
echo $! >"$WORK/speech.pid"
if [[ $GPUS -gt 0 ]]; then
  "$PYTHON" -m small_voice.warm_compile >"$WORK/warm.log" 2>&1 &
fi

ENDS=$((T0 + LIMIT - 40))
pids=() logs=()
for i in "${!VARIANTS[@]}"; do
  v=${VARIANTS[$i]}
  device=cpu
  [[ $GPUS -gt 0 ]] && device=cuda:$((i % GPUS))
  logs+=("$WORK/codec-$v.log")
  "$PYTHON" -m small_voice.train_codec "$WORK/speech" "$WORK/codecs/$v" --variant "$v" --hours "$CODEC_HOURS" \
    --seconds 600 --ends "$ENDS" --device "$device" ${MORE[@]+"${MORE[@]}"} >"${logs[-1]}" 2>&1 &
  pids+=($!)
done

keep_best() {
  "$PYTHON" -m small_voice.pick "$WORK/codecs" "$WORK/picked" && keep codec "$WORK/picked"
  (cd "$WORK" && find . -name '*.log' -o -name figures.json | tar -czf "$OUT/logs1.tgz" -T -)
}
kept=$(date +%s)
while [[ -n $(jobs -rp) ]] && { for p in "${pids[@]}"; do kill -0 "$p" 2>/dev/null && break; done; }; do
  sleep $((SMOKE == 1 ? 5 : 20))
  say "--"
  last "$WORK/speech.log" "${logs[@]}" "$WORK/warm.log"
  if [[ $(($(date +%s) - kept)) -gt 90 ]]; then keep_best; kept=$(date +%s); fi
done
for log in "${logs[@]}"; do
  grep -q saved "$log" || { say "$log has saved nothing:"; tail -n 15 "$log"; }
done
keep_best
say "done"
"$PYTHON" -m small_voice.pick "$WORK/codecs" "$WORK/picked" --table
last "$WORK/speech.log"
du -sh "$WORK"/speech "$OUT"; ls -l "$OUT"
