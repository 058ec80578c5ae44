"""SGLang's multimodal processor for our model: checks a request, builds its prompt, packs it for the scheduler.

Runs in the HTTP process for every request (`hooks` sees to that), before any model time is spent.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sglang.srt.managers.schedule_batch import MultimodalProcessorOutput
from sglang.srt.multimodal.processors.base_processor import BaseMultimodalProcessor
from sglang.srt.utils.hf_transformers_utils import get_tokenizer

from sglang_moss.codec.config import CodecConfig
from sglang_moss.config import profile_of
from sglang_moss.errors import BadRequest, BadSetting, PromptTooLong
from sglang_moss.models.moss_ttsd import EntryClass
from sglang_moss.multimodal_item import envelope
from sglang_moss.request.codec_pool import CodecPool
from sglang_moss.request.first_sound import FirstSoundMarks
from sglang_moss.request.prompt import Mode, build_prompt, choose_mode, special_strings
from sglang_moss.request.ranks import Ranks
from sglang_moss.request.record import current_record
from sglang_moss.request.references import ReferenceCodes, ReferenceEncoder
from sglang_moss.request.script import Script, check_script, read_script
from sglang_moss.request.settings import RequestOptions
from sglang_moss.request.speech import SpeechRequest
from sglang_moss.request.turns import Turn, turns_of
from sglang_moss.server_args import MossServerArgs

# A request may fill the context, or the KV cache if that is smaller, but for a row; SGLang keeps 5 of it from prompts.
_SCHEDULER_RESERVE = 4
_WRITERS = 2  # threads that read long scripts and write long prompts
# What is shorter takes a few milliseconds. In a thread it would take longer, since threads pass Python's lock to and
# fro, and of requests that come together the first would wait for all.
_SHORT_CHARS = 4_000
_SHORT_FRAMES = 1_000

_T = TypeVar("_T")


class TokenizerAsProcessor:
    """What SGLang's processor registry wants of us: the checkpoint's own processor class needs remote code."""

    @classmethod
    def from_pretrained(cls, name: str, *args: Any, **kwargs: Any) -> Any:
        settings: dict[str, Any] = {k: v for k, v in kwargs.items() if k != "use_fast"} | {"trust_remote_code": False}
        tokenizer = get_tokenizer(name, *args, **settings)
        # SGLang asks for it after every row of every request, and transformers looks it up in the vocabulary each time.
        vars(tokenizer)["eos_token_id"] = tokenizer.eos_token_id
        return tokenizer


class MossTTSDProcessor(BaseMultimodalProcessor):
    """From `GenerateReqInput` to a `SpeechRequest`."""

    auto_mm_processor_worker_num = 1  # nothing is processed in SGLang's own workers, which would each load a tokenizer
    generates_input_ids_from_raw_prompt = True  # spares SGLang's own tokenization of the script
    models = EntryClass

    def __init__(self, hf_config: Any, server_args: MossServerArgs, _processor: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(hf_config, server_args, _processor, *args, **kwargs)
        self._tokens = hf_config.special_tokens()
        self._profile = profile_of(hf_config)
        self._codec = CodecConfig.from_dict(hf_config.codec_config)
        self._special_strings = special_strings(self._tokenizer)
        self._references: ReferenceEncoder | None = None
        self.ranks = Ranks(server_args.dp_size)
        self.timed_turns: dict[str, list[Turn]] = {}  # by request id: of those whose answer tells their times
        self.first_sounds = FirstSoundMarks()
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="moss-prompt")

    async def process_mm_data_async(  # pyright: ignore[reportIncompatibleMethodOverride] (as SGLang's own call it)
        self,
        image_data: Any,
        audio_data: Any,
        input_text: Any,  # noqa: ARG002 (SGLang puts ids here where the text is empty)
        request_obj: Any,
        max_req_input_len: int,
        **kwargs: Any,  # noqa: ARG002
    ) -> MultimodalProcessorOutput | None:
        """Check and pack one request.

        Raises:
            BadRequest: what the client sent cannot be served; HTTP 400.
            ServerBusy: the codec has too much to do; HTTP 503.
            MossError: the codec failed; HTTP 500.
        """
        if request_obj.text is None:
            return None  # SGLang's own health check; everything else without text was refused on arrival
        if image_data or request_obj.video_data:
            raise BadRequest("this model takes text and audio_data only; leave image_data and video_data out")
        preparation = current_record().preparation
        await preparation.begin()
        marks = {"received": current_record().started, "read": time.monotonic()}
        try:
            return await self._packed(audio_data, request_obj, max_req_input_len, marks)
        finally:
            preparation.end()  # the next one begins once SGLang has sent this one on, which waits for nothing

    async def _packed(
        self, audio_data: Any, request_obj: Any, max_req_input_len: int, marks: dict[str, float]
    ) -> MultimodalProcessorOutput:
        """
        Args:
            marks: when the request passed what it has passed; those that it passes here are added.
        """
        options = RequestOptions.parse(request_obj.sampling_params or {}, self._profile)
        if options.timings and not request_obj.stream:
            raise BadSetting("timings: of a stream's first event; send stream true, or leave it out")
        is_short = len(request_obj.text) <= _SHORT_CHARS
        script = await self._run(is_short, self._script, request_obj.text, options)
        mode = choose_mode(options.mode, len(audio_data or ()), self._profile)
        if script.tokens is not None and mode.continues:
            raise BadSetting(f"tokens: mode {mode.name} has no length of its own; leave it out, or take voice_clone")
        if options.timestamps:
            self._check_timed(script, mode)
        marks["checked"] = time.monotonic()
        codes = await self._encoder().encode(audio_data or (), mode, options.strict)
        marks["references"] = time.monotonic()
        references = None if audio_data is None or not (mode.clones or audio_data == []) else codes.clips

        def pack() -> tuple[int | None, MultimodalProcessorOutput]:
            prompt = build_prompt(
                script,
                references,
                codes.prompt_audio,
                self._tokenizer,
                self._tokens,
                mode,
                max_req_input_len,
                self._profile,
            )
            max_frames = options.frames_for(script.tokens)
            n_new = self._row_limit(options, max_frames, mode, len(prompt.rows), max_req_input_len)
            return n_new, envelope(SpeechRequest(prompt, options, codes.all_cached), self._tokens.pad_code)

        n_new, packed = await self._run(is_short and codes.n_frames <= _SHORT_FRAMES, pack)
        request_obj.sampling_params = _scheduler_params(n_new)
        if options.timestamps:
            self.timed_turns[request_obj.rid] = turns_of(script.text or "")
        if options.timings:
            self.first_sounds.keep(request_obj.rid, marks | {"prompt": time.monotonic()})
        request_obj.mm_hashes = None
        request_obj.routed_dp_rank = self.ranks.choose(request_obj.rid, _voice(codes))
        return packed

    async def learn(self, clip: bytes) -> None:
        """Encode a clip before anybody speaks with it: the first request that does finds its codes.

        Raises:
            BadReference: it cannot be read or used.
            MossError: the codec failed.
        """
        await self._encoder().encode([clip], choose_mode("voice_clone", 1), strict=True)

    async def _run(self, is_short: bool, work: Callable[..., _T], *operands: Any) -> _T:
        """Do what takes long for a long text where it stops no stream."""
        preparation = current_record().preparation
        if is_short:
            if not preparation.has_place:
                await asyncio.sleep(0)  # between those of a batch
            return work(*operands)
        preparation.end()
        return await asyncio.get_running_loop().run_in_executor(self._writers, work, *operands)

    def _script(self, text: str, options: RequestOptions) -> Script:
        script = read_script(text, self._profile, options.fields)
        check_script(script, self._special_strings, profile=self._profile)
        return script

    def _check_timed(self, script: Script, mode: Mode) -> None:
        """Refuse what has no turns, or turns that are not all heard.

        Raises:
            BadSetting: the sentence says what to do.
        """
        if script.text is None:
            raise BadSetting(f"timestamps: {self._profile.model} makes sound without turns; leave it out")
        if mode.continues:
            raise BadSetting(
                f"timestamps: in mode {mode.name} transcripts stand in front of the script, and nothing says where it "
                "begins; take voice_clone, or /v1/audio/speech, which knows"
            )

    def _encoder(self) -> ReferenceEncoder:
        """Made on first use: its socket belongs to the event loop, and one of the two processes never needs it."""
        if self._references is None:
            args = self.server_args
            self._references = ReferenceEncoder(
                CodecPool(args.codec_addresses, self._tokens.n_vq),
                self._codec.sampling_rate,
                self._codec.frame_samples,
                args.reference_limits,
                args.source_policy,
                args.reference_cache_mb * 1_000_000,
            )
        return self._references

    def _row_limit(
        self, options: RequestOptions, max_frames: int | None, mode: Mode, n_prompt: int, max_prompt: int
    ) -> int | None:
        """Rows that a request may generate: its frames and the rows that flush them; None: what the context holds.

        The reference adds as many for every mode, so that a turn that continues has room for two frames more. Strictly,
        a turn that continues nothing opens with a row of its own, and one of fixed length also closes with one.
        """
        n_flush = self._tokens.n_vq + 1
        if options.strict:
            n_flush = self._tokens.n_vq - 1 + (not mode.continues) + options.ignore_eos
        n_left = max_prompt + _SCHEDULER_RESERVE - n_prompt
        if n_prompt >= max_prompt or n_left <= n_flush:
            raise PromptTooLong(
                f"text and references take {n_prompt} of {max_prompt} rows of context, which leaves no room for audio; "
                "send less text or shorter references"
            )
        if max_frames is None:
            return None
        if options.ignore_eos and max_frames + n_flush > n_left:
            raise PromptTooLong(
                f"max_new_tokens = {max_frames} with ignore_eos needs {max_frames + n_flush} rows, "
                f"but the context has {n_left} left; ask for {n_left - n_flush} at most"
            )
        return min(max_frames + n_flush, n_left)


def _voice(codes: ReferenceCodes) -> bytes:
    """What the prompts of one voice open with; empty without references."""
    first = codes.clips[0] if codes.clips else codes.prompt_audio
    return b"" if first is None else first.tobytes()


def _scheduler_params(n_rows: int | None) -> dict[str, Any]:
    """`sampling_params` as SGLang's scheduler shall see them: only a length, everything else is ours."""
    return {"max_new_tokens": n_rows, "temperature": 0.0, "repetition_penalty": 1.0, "ignore_eos": False}
