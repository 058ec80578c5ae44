#!/usr/bin/env bash
# Serves MOSS-TTSD in a container: fuses the two published checkpoints where that is still to be done, then becomes
# `sglang serve`.
#
#   moss-entrypoint [ARGUMENTS OF sglang serve]
#   moss-entrypoint COMMAND [ARGUMENTS]             runs the command instead
#
# MOSS_MODELS    folder that holds MOSS-TTSD-v1.0 and MOSS-Audio-Tokenizer (/models); may be read-only
# MOSS_DOWNLOAD  1: download there what is missing
# MOSS_DATA      folder for what is made here and must stay: the fused checkpoint and the voices (/data)
# MOSS_PORT      port to listen on (30000)
# MOSS_API_KEY   key that clients must send; none if empty
set -euo pipefail

readonly models=${MOSS_MODELS:-/models} data=${MOSS_DATA:-/data}
readonly fused=$data/fused

say() { printf 'moss-entrypoint: %s\n' "$*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

# Run what takes minutes: a signal to this shell ends it, and it has the time to put things in order.
run() {
    local child status signals=0 seen=-1
    "$@" &
    child=$!
    trap 'signals=$((signals + 1)); kill -TERM "$child" || true' TERM INT HUP
    while ((seen != signals)); do # `wait` also returns when the trap has run
        seen=$signals status=0
        wait "$child" || status=$?
    done
    trap - TERM INT HUP
    ((status == 0 && signals == 0)) || exit "$status"
}

# Make sure that a published checkpoint is there. A download has its final name only when it is whole.
provide() {
    local name=$1 folder=$models/$1
    [[ ! -d $folder ]] || return 0
    [[ ${MOSS_DOWNLOAD:-0} == 1 ]] || fail "$folder is missing: mount a folder at $models that holds" \
        "MOSS-TTSD-v1.0 and MOSS-Audio-Tokenizer, or set MOSS_DOWNLOAD=1 to download them there"
    [[ -w $models ]] || fail "$models cannot be written by user $(id -u), so $name cannot be downloaded there"
    say "downloading $name to $folder"
    run hf download "OpenMOSS-Team/$name" --local-dir "$folder.downloading"
    mv "$folder.downloading" "$folder"
}

# Fuse once, however many containers share the volume and start together.
make_fused() {
    exec 9> "$data/.fusing.lock"
    flock --nonblock 9 || {
        say "waiting for another container that makes $fused"
        run flock 9
    }
    if [[ ! -f $fused/config.json ]]; then
        rm -rf "$data"/.fused.fusing-* # of runs that were killed; nobody else fuses now
        provide MOSS-TTSD-v1.0
        provide MOSS-Audio-Tokenizer
        say "fusing them into $fused, which takes minutes"
        run python -m sglang_moss.fuse --save-path "$fused" \
            --model-path "$models/MOSS-TTSD-v1.0" --codec-model-path "$models/MOSS-Audio-Tokenizer"
    fi
    exec 9>&-
}

case ${1:-} in
    '' | -*) ;;
    *) exec "$@" ;;
esac

[[ -d $data && -w $data ]] || fail "$data cannot be written by user $(id -u): mount a volume there that this user owns"
[[ -f $fused/config.json ]] || make_fused
nvidia-smi --list-gpus > /dev/null 2>&1 || say "warning: no GPU is visible here (docker run --gpus all): using the CPU"

export HF_HUB_OFFLINE=1
# The arguments come last, so that they may override these.
exec sglang serve --model-path "$fused" --delay-pattern --voices-dir "$data/voices" \
    --host 0.0.0.0 --port "${MOSS_PORT:-30000}" ${MOSS_API_KEY:+"--api-key=$MOSS_API_KEY"} "$@"
