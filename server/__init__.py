"""HTTP beyond SGLang's own: `/v1/audio/speech` as OpenAI defines it, and `/v1/audio/voices`, on the same port.

    fields -> order -> narration -> answers     one speech: what was sent, what is meant, its samples, its bytes
              parts    engine, joining  encoding

Nothing is decided here about prompts, sampling or audio: every session is an ordinary request to SGLang, as `/generate`
makes it, and meets the same checks.
"""
