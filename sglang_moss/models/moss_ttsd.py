"""MOSS-TTSD with its codec, as SGLang runs it: a Qwen3 backbone, `n_vq` audio embeddings and heads, state per slot.

    text id + n_vq codes -> sum of embeddings -> Qwen3 -> text head, audio heads -> next row

SGLang sees one token a step, the text id. The codes live in `SlotState`, indexed by `req_pool_indices`, and every step
of decoding happens in `forward` on tensors of fixed shape, so that it can be captured in a CUDA graph.

Source: MOSS-TTS `MossTTSDelayModel`; weight names of the MOSS-TTSD fuse script.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from sglang.srt.model_executor.forward_batch_info import ForwardBatch
from sglang.srt.models.qwen3 import Qwen3ForCausalLM
from sglang.srt.runtime_context import get_parallel, get_server_args
from torch import Tensor, nn
from torch.nn import functional

from sglang_moss.backbone.decoding import DecodingLayers, rules_for
from sglang_moss.backbone.layers import FUSED
from sglang_moss.capture_stream import set_capture_stream
from sglang_moss.codec.codec import Codec
from sglang_moss.codec.config import CodecConfig
from sglang_moss.codec.encoder_runner import EncoderRunner
from sglang_moss.codec.precision import encoder_precision
from sglang_moss.codec.state import codec_dtype, stream_slots
from sglang_moss.config import MossTTSDConfig
from sglang_moss.decode.stream_decoder import slots_for
from sglang_moss.multimodal_item import progress_of
from sglang_moss.parallel import is_first_rank, replicate_text_tables, shared_rows
from sglang_moss.request.speech import SpeechProgress
from sglang_moss.server_args import serves_speech
from sglang_moss.step import eager
from sglang_moss.step.slots import SlotState, to_device

logger = logging.getLogger(__name__)

_CODEC_PREFIX = "codec_model."
_UNKNOWN = -1  # text id of a row that the host does not know, since its request carries no speech
# SGLang packs these projections of the checkpoint into one parameter each.
_PACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


class MossTTSDdelayWithCodec(Qwen3ForCausalLM):
    """The name is the fused checkpoint's `architectures` entry."""

    def __init__(self, config: MossTTSDConfig, quant_config: Any = None, prefix: str = "") -> None:
        server_args: Any = get_server_args()
        if not serves_speech(server_args):
            raise ValueError("this checkpoint is a fused MOSS-TTSD: serve it with `sglang serve --delay-pattern`")
        language_config = config.language_config
        language_config.tie_word_embeddings = False  # the text head is always a tensor of its own, `lm_heads.0`
        super().__init__(language_config, quant_config, prefix)
        if get_parallel().tp_size > 1:
            replicate_text_tables(self)
        self.tokens = config.special_tokens()
        self.n_codes = config.audio_vocab_size + 1
        shape = (self.tokens.n_vq * self.n_codes, language_config.hidden_size)
        self.code_embedding = nn.Parameter(
            torch.empty(shape), requires_grad=False
        )  # codebook k's rows from k * n_codes
        self.audio_heads = nn.Parameter(torch.empty(shape), requires_grad=False)
        # Allocated here, before SGLang gives what is left of the memory to its KV cache. Other ranks have no audio.
        self.codec = self._build_codec(config) if is_first_rank() else None
        self.slot_state = SlotState(
            n_slots=server_args.max_running_requests + 1,
            audio_vocab_size=config.audio_vocab_size,
            tokens=self.tokens,
            device=self.code_embedding.device,
        )
        self._step = _step_functions(self.code_embedding.device)
        self._layers = self._fused_layers() if server_args.decoding_layers == FUSED else None
        self.shared_rows = shared_rows(server_args.check_ranks, self.code_embedding.device)
        set_capture_stream()

    def _build_codec(self, config: MossTTSDConfig) -> Codec:
        """The codec, its decoder's states and the encoder of references."""
        server_args: Any = get_server_args()
        codec = Codec(CodecConfig.from_dict(config.codec_config))
        self._codec_dtype = codec_dtype(server_args.codec_dtype, codec.device)
        # Before weights come: loading needs no memory for float32 ones.
        codec.to_serving_dtype(self._codec_dtype)
        codec.to_encoder_precision(encoder_precision(server_args.codec_encoder_precision, codec.device))
        slots = stream_slots(
            server_args.codec_slots,
            slots_for(server_args.max_running_requests),
            codec.slot_bytes(self._codec_dtype),
            codec.device,
        )
        self.decoder_state = codec.new_state(slots + server_args.codec_voices, self._codec_dtype)
        self.reference_encoder = EncoderRunner(codec, self.tokens.n_vq)
        return codec

    @torch.no_grad()
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (SGLang calls it by the first three)
        self,
        input_ids: Tensor,
        positions: Tensor,
        forward_batch: ForwardBatch,
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> LogitsProcessorOutput:
        """One step; `next_token_logits` of the answer holds the drawn rows, [B, 1 + n_vq] int64 (see `row_sampler`)."""
        slots = forward_batch.req_pool_indices.long()
        if forward_batch.forward_mode.is_extend():
            drawn = self._prefill(input_ids, positions, forward_batch, slots)
        else:
            embeds = self._step.begin_step(self.slot_state, slots, input_ids, *self._tables())
            if self._layers is not None and forward_batch.forward_mode.is_decode():
                hidden = self._layers(embeds, positions, forward_batch)
            else:
                hidden = self.model(input_ids, positions, forward_batch, embeds)
            drawn = self._draw(hidden, slots, forward_batch.seq_lens)
        return LogitsProcessorOutput(next_token_logits=drawn)

    def _fused_layers(self) -> DecodingLayers:
        device = self.code_embedding.device
        found = DecodingLayers(self.model, rules_for(device))
        if device.type == "cuda":
            from sglang_moss.backbone.proof import prove

            layers: Any = self.model.layers
            first = layers[0].self_attn
            sizes = self.config.hidden_size, self.config.intermediate_size
            prove(*sizes, first.num_heads, first.num_kv_heads, first.head_dim, self.code_embedding.dtype, device)
        logger.info("decoding steps have fused layers")
        return found

    def _prefill(self, input_ids: Tensor, positions: Tensor, batch: ForwardBatch, slots: Tensor) -> Tensor:
        """Rows of several requests, of which some end here: only those draw a row and (re)start their slot."""
        chunks = [_PrefillChunk.of(batch, i) for i in range(len(slots))]
        known = np.full((len(input_ids), 1 + self.tokens.n_vq), self.tokens.pad_code)
        known[:, 0] = _UNKNOWN
        for chunk in chunks:
            if chunk.progress is not None:
                known[chunk.start_in_batch : chunk.end_in_batch] = chunk.rows()
        on_device = to_device(known, slots.device)
        text_ids = torch.where(on_device[:, 0] == _UNKNOWN, input_ids, on_device[:, 0])
        embeds = self._step.embed_rows(text_ids, on_device[:, 1:], *self._tables())
        hidden = self.model(text_ids, positions, batch, embeds)

        drawn = torch.zeros(len(slots), 1 + self.tokens.n_vq, dtype=torch.int64, device=slots.device)
        last = [i for i, chunk in enumerate(chunks) if chunk.is_last]
        if last:
            ends = to_device(np.array([chunks[i].end_in_batch - 1 for i in last]), slots.device)
            at = to_device(np.array(last), slots.device)
            self.slot_state.start(slots[at], [chunks[i].progress for i in last])
            drawn[at] = self._draw(hidden[ends], slots[at], batch.seq_lens[at])
        return drawn

    def _draw(self, hidden: Tensor, slots: Tensor, seq_lens: Tensor) -> Tensor:
        """Rows after the hidden states [B, D] of the last rows; remembered in the slots."""
        audio_logits = self._audio_logits(hidden)
        rows = self._step.finish_step(self.slot_state, slots, seq_lens, hidden, self._text_head(), audio_logits)
        rows = eager.mark_not_finite(rows, audio_logits)
        return rows if self.shared_rows is None else self.shared_rows.share(rows, slots, self.slot_state)

    def _tables(self) -> tuple[Tensor, Tensor]:
        """Embeddings of text ids [V, D] and of codes [n_vq * n_codes, D]."""
        text_table: Any = self.model.embed_tokens.weight
        return text_table, self.code_embedding

    def _text_head(self) -> Tensor:
        text_head: Any = self.lm_head.weight
        return text_head[: self.config.vocab_size]

    def _audio_logits(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.audio_heads).view(-1, self.tokens.n_vq, self.n_codes)

    def logits(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """[B, D] -> text [B, V] and audio [B, n_vq, audio_vocab_size + 1] logits, float32."""
        return functional.linear(hidden, self._text_head()).float(), self._audio_logits(hidden).float()

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Fill every parameter from a fused checkpoint, tensor by tensor.

        Raises:
            ValueError: a tensor is missing, unexpected or of another shape.
        """
        of_codec = self._load_language_model(weights)
        if self.codec is None:
            deque(of_codec, maxlen=0)  # read, and dropped
            return
        self.codec.load_weights(of_codec)
        self.codec.to_serving_dtype(self._codec_dtype)  # refuses weights that the dtype could not hold

    def _load_language_model(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Load the language model's tensors; pass the codec's on, without their prefix."""
        expected = set(self._language_model_names())
        for name, tensor in weights:
            if name.startswith(_CODEC_PREFIX):
                yield name.removeprefix(_CODEC_PREFIX), tensor
                continue
            if name not in expected:
                raise ValueError(f"tensor {name} is unexpected or doubled in the checkpoint; fuse it again")
            expected.discard(name)
            part, _, index = name.removesuffix(".weight").partition(".")
            if part == "emb_ext":
                self._codebook_rows(self.code_embedding, int(index), name, tensor).copy_(tensor)
            elif part == "lm_heads" and index != "0":
                self._codebook_rows(self.audio_heads, int(index) - 1, name, tensor).copy_(tensor)
            else:
                super().load_weights([("lm_head.weight" if part == "lm_heads" else name, tensor)])
        if expected:
            raise ValueError(f"{len(expected)} tensors are missing from the checkpoint, first {min(expected)}")

    def _codebook_rows(self, packed: nn.Parameter, codebook: int, name: str, tensor: Tensor) -> Tensor:
        rows = packed.data[codebook * self.n_codes : (codebook + 1) * self.n_codes]
        if tensor.shape != rows.shape:
            raise ValueError(f"tensor {name} has shape {list(tensor.shape)}, expected {list(rows.shape)}")
        return rows

    def _language_model_names(self) -> Iterator[str]:
        """The checkpoint's names of everything but the codec."""
        n_vq = self.tokens.n_vq
        yield from (f"emb_ext.{k}.weight" for k in range(n_vq))
        yield from (f"lm_heads.{k}.weight" for k in range(n_vq + 1))
        for name, _ in self.model.named_parameters(prefix="model"):
            if not name.endswith((".weight", ".bias")):
                continue  # scales that a quantisation method derives
            packed = next((p for p in _PACKED if f".{p}." in name), None)
            yield from (name.replace(packed, part) for part in _PACKED[packed]) if packed else (name,)

    def post_load_weights(self) -> None:
        """Build what derives from weights; SGLang calls this for dummy weights, which skip `load_weights`."""
        if self.codec is not None:
            self.codec.post_load()


def _step_functions(device: torch.device) -> ModuleType:
    """`begin_step`, `embed_rows` and `finish_step` for tensors on `device`."""
    if device.type != "cuda":
        return eager
    from sglang_moss.step.kernels import step

    return step


class _PrefillChunk:
    """One request's part of a prefill batch."""

    def __init__(self, progress: SpeechProgress | None, first: int, length: int, start: int, is_last: bool) -> None:
        self.progress = progress
        self.first = first  # row of the request
        self.length = length
        self.start_in_batch = start
        self.end_in_batch = start + length
        self.is_last = is_last

    @classmethod
    def of(cls, batch: ForwardBatch, i: int) -> "_PrefillChunk":
        lengths, prefixes = batch.extend_seq_lens_cpu, batch.extend_prefix_lens_cpu
        assert lengths is not None, "SGLang fills it for every prefill"
        assert prefixes is not None, "SGLang fills it for every prefill"
        item = batch.mm_inputs[i] if batch.mm_inputs is not None else None
        req = getattr(item, "req", None)
        # A request that SGLang aborted before its prefill, and a health check, come without an item.
        is_last = req is None or req.extend_end == len(req.full_untruncated_fill_ids)
        progress = None if req is None else progress_of(req)
        return cls(progress, int(prefixes[i]), int(lengths[i]), int(sum(lengths[:i])), is_last)

    def rows(self) -> np.ndarray:
        assert self.progress is not None
        return self.progress.all_rows(self.first, self.first + self.length)


class MossTTSDelayWithCodec(MossTTSDdelayWithCodec):
    """The same under the name that the served fork's tool gives to a fused MOSS-TTS."""


EntryClass = [MossTTSDdelayWithCodec, MossTTSDelayWithCodec]
