# shellcheck shell=bash disable=SC2034
# Sourced by the other scripts: where things lie on the machine, and how a run tells and keeps what it has.
set -u
T0=$(date +%s)
SMOKE=${SMOKE:-0}
CARRIED=${CARRIED:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)}
WORK=${WORK:-/tmp/voice}
OUT=$(realpath -m "${OUT:-$WORK/out}")
PYTHON=${PYTHON:-python3}
LIMIT=${LIMIT:-580} # seconds after which the command is killed
FROM=${FROM:+$(realpath "$FROM")} CODEC=${CODEC:+$(realpath "$CODEC")} # as they are given, before the directory changes
mkdir -p "$WORK" "$OUT"
cd "$WORK" || exit 1
export PYTHONSAFEPATH=1 # what lies in the working directory is not what was carried
export PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=true HF_HUB_OFFLINE=1
export FLITE_LIBRARIES=${FLITE_LIBRARIES:-$WORK/flite}
export PYTHONPATH=$WORK/site:$WORK/recipes${PYTHONPATH:+:$PYTHONPATH}
CACHE=${CACHE:-/tmp/voice-cache} # what is compiled serves every run of the machine
export TORCHINDUCTOR_CACHE_DIR=$CACHE/inductor TRITON_CACHE_DIR=$CACHE/triton
CORES=$(env -u OMP_NUM_THREADS nproc)
GPUS=${GPUS:-$(nvidia-smi -L 2>/dev/null | wc -l)} # those that a command takes: the first ones, or CUDA_VISIBLE_DEVICES

elapsed() { echo $(($(date +%s) - T0)); }
say() { echo "[$(elapsed) s] $*"; }
# unpack FILE: once.
unpack() {
  [[ -e $WORK/.$1 || ! -e $CARRIED/$1 ]] && return
  tar -xJf "$CARRIED/$1" -C "$WORK" && touch "$WORK/.$1"
}
# unpack_recipes: these files, every time; small, so that the next command may bring others.
unpack_recipes() { [[ ! -e $CARRIED/recipes.tar.xz ]] || tar -xJf "$CARRIED/recipes.tar.xz" -C "$WORK"; }
# keep NAME DIRECTORY: a tar of a directory in files that the machine gives back, replaced as a whole.
keep() {
  local parts=$WORK/.parts.$1
  rm -rf "$parts" && mkdir -p "$parts"
  tar -C "$(dirname "$2")" -cf - "$(basename "$2")" | split -b 16000000 -d - "$parts/$1.tar." || return
  rm -f "$OUT/$1".tar.*
  mv "$parts/$1".tar.* "$OUT/"
}
# last FILE...: the last line of each, cut.
last() { for file in "$@"; do [[ -s $file ]] && tail -n 1 "$file" | tr '\r' '\n' | tail -n 1 | cut -c1-230; done; }
