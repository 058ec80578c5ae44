#!/usr/bin/env bash
# The HTTP API with curl and jq: whole answers, streams, stored voices.
#
#   examples/generate.sh                                        speech without a voice to go by
#   examples/generate.sh alice.wav "Good morning, everyone."    also with the voice of a clip, and what is said in it
#
# MOSS_URL is the server (http://127.0.0.1:30000), MOSS_API_KEY its key, if it has one. Writes into the current folder.
set -euo pipefail

url=${MOSS_URL:-http://127.0.0.1:30000}
script="[S1] Did you hear that? [S2] No. What was it?"

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

ask() {
    curl --silent --show-error --fail-with-body -H "Authorization: Bearer ${MOSS_API_KEY:-none}" "$url$1" "${@:2}"
}
post() { ask "$@" -H 'Content-Type: application/json' --data-binary @-; }

# Prints what a command does once it is whole; on a refusal fails, with the server's own words on stderr.
whole() {
    "$@" > "$answer" || {
        cat "$answer" >&2
        return 1
    }
    cat "$answer"
}

# Everything at once: JSON with a base64 WAV in `text`.
request=$(jq -n --arg text "$script" '{text: $text, sampling_params: {max_new_tokens: 250, sampling_seed: 8}}')
spoken=$(whole post /generate <<< "$request")
jq -j .text <<< "$spoken" | base64 -d > whole.wav # only now: a server that is away costs no file that is there

# As it is made: server-sent events, each with a base64 WAV of what is new; behind the 44 bytes of its header are
# 16-bit samples. This writes them one after the other; `| aplay -f S16_LE -r 24000` in place of `> stream.pcm` plays.
# A refusal is no event, so it goes to stderr; an event with `error` says why the speech breaks off.
jq '.stream = true' <<< "$request" | post /generate --no-buffer |
    sed --unbuffered -n -e 's/^data: {/{/p; t; /^data: /d; /./w /dev/stderr' |
    jq --unbuffered -nr 'inputs | if .error then error(.error.message) else .text | select(. != "") end' |
    while read -r wav; do base64 -d <<< "$wav" | tail -c +45; done > stream.pcm

# OpenAI's endpoint answers with the audio file itself: mp3, opus, aac, flac, wav or pcm.
jq -n --arg text "$script" '{input: $text, response_format: "mp3", max_seconds: 20, seed: 8}' |
    whole post /v1/audio/speech > speech.mp3

if (($# == 2)); then
    # A reference sent along: its transcript stands in front of the text.
    base64 -w 0 "$1" | jq -R --arg text "[S1]$2$script" \
        '{text: $text, audio_data: [.], sampling_params: {max_new_tokens: 250, sampling_seed: 8}}' |
        whole post /generate | jq -j .text | base64 -d > cloned.wav

    # Or stored once, and used by name.
    ask /v1/audio/voices -F name=example --form-string text="$2" -F audio=@"$1"
    whole ask /v1/audio/voices | jq -r '.data[] | "\(.name): \(.seconds) s"'
    jq -n --arg text "$script" '{input: $text, voice: "example", response_format: "wav", max_seconds: 20, seed: 8}' |
        whole post /v1/audio/speech > stored.wav
    ask /v1/audio/voices/example -X DELETE
fi
