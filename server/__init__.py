"""HTTP beyond SGLang's own: `/v1/audio/speech` as OpenAI defines it, `/v1/audio/voices` and the page, on the same port.

    access_log -> page -> SGLang's own -> gate -> health -> routes      what every request passes, outermost first
      metrics            (API key, CORS)  admission, rate_limit, body

    fields -> order -> narration -> answers     one speech: what was sent, what is meant, its samples, its bytes
              parts    engine, joining  encoding

Nothing is decided here about prompts, sampling or audio: every session is an ordinary request to SGLang, as `/generate`
makes it, and meets the same checks.
"""
