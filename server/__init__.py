"""HTTP beyond SGLang's own: `/v1/audio/speech` as OpenAI defines it, `/v1/audio/voices` and the page, on the same port.

    gate/access_log   an id, a log line, metrics            what every request passes, outermost first
    page/page         `/`, before any key is asked for
    SGLang's own      API key, CORS
    gate/gate         is it served (paths), is there a place (admission, rate_limit), does its body come in bounds
                      (body); its answer leaves no faster than it is read (paced_send)
    gate/health       `/health` asks the codec's thread first
    a route           SGLang's own, or speech/routes

    speech/           fields -> plan  -> narration -> responses      one speech: what was sent, what is meant by it,
                                parts    sessions     encoding       its samples, its bytes
                                         crossfade

`app` puts all of it on SGLang's application; `gate/shutdown` takes the place of SGLang's signal handler. Nothing is
decided here about prompts, sampling or audio: every session is an ordinary request to SGLang, as `/generate` makes it,
and meets the same checks.
"""
