"""Other sizes, rates and token ids than the golden checkpoint's: nothing is hard-wired.

`other_models` makes the checkpoints. One has golden data; the other is held against transformers and our own codec.
SGLang is started with the flag that lets it run a checkpoint's Python files for one, and without it for the other.
"""

import base64
import dataclasses
import io
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from codec_models import checkpoint_tensors, config_dict
from fresh_process import in_fresh_process
from golden_data import GOLDEN, golden_arrays
from made_checkpoints import codec_shapes
from other_models import Fused, OddModel, make_nvq32, make_odd
from transformers import PreTrainedTokenizerFast
from transformers_logits import logits_by_transformers
from warm_engine import generated
from warm_start import warm

from sglang_moss.audio.loading import ReferenceLimits
from sglang_moss.audio.preparation import concatenate_references, prepare_reference
from sglang_moss.benchmarks.reference.golden_cases import GoldenCases, GreedyCase
from sglang_moss.benchmarks.reference.rows_engine import RowsAnswer, RowsEngine
from sglang_moss.config import SpecialTokens
from sglang_moss.request.prompt import SpeechPrompt, build_prompt, choose_mode
from sglang_moss.request.script import read_script

pytestmark = pytest.mark.server

TOLERANCE = 1e-4  # of logits; their float32 noise is 1e-5
STEP = 1 / 32768  # of 16-bit samples

NVQ32_CASES = GoldenCases(GOLDEN, "ttsd_nvq32").greedy_nvq32()

SCRIPT = "[S1] Shall we walk along the river? [S2] 今天我们聊聊音乐。 [S1] Good."
CLIPS = [(GOLDEN / "cases" / "audio" / name).read_bytes() for name in ("spk3_16k.wav", "spk4_44k1_stereo.wav")]
N_SEEDS = 4


@dataclass(frozen=True)
class Spoken:
    """A request's prompt, as the scheduler got it, and the answer."""

    prompt: SpeechPrompt
    answer: RowsAnswer


@pytest.fixture(scope="module")
def nvq32(tmp_path_factory: pytest.TempPathFactory) -> Fused:
    return make_nvq32(tmp_path_factory.mktemp("nvq32"))


@pytest.fixture(scope="module")
def nvq32_answers(nvq32: Fused) -> dict[str, Spoken]:
    prompts, settings = [case.prompt for case in NVQ32_CASES], [case.settings for case in NVQ32_CASES]
    answers = generated(nvq32.path, prompts, settings, trust_remote_code=True)
    return {case.key: Spoken(case.prompt, answer) for case, answer in zip(NVQ32_CASES, answers, strict=True)}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> OddModel:
    return make_odd(tmp_path_factory.mktemp("odd"))


def odd_requests() -> list[dict[str, Any]]:
    """Two voices and none, of fixed and of free length, several seeds each."""
    references = [base64.b64encode(clip).decode() for clip in CLIPS]
    requests = []
    for i in range(2 * N_SEEDS):
        for fixed in (True, False):
            length = {"max_new_tokens": 23 + 7 * (i // 2), "ignore_eos": fixed}
            settings = {"sampling_seed": i, "repetition_penalty": 1.0 + 0.05 * i, **length}
            requests.append({"text": SCRIPT, "audio_data": references if i % 2 else None, "sampling_params": settings})
    return requests


ODD_REQUESTS = odd_requests()


@dataclass(frozen=True)
class OddAnswers:
    """Answers to `ODD_REQUESTS`, by three ways through the engine."""

    alone: list[Spoken]
    at_once: list[Spoken]
    from_cache: list[Spoken]


@pytest.fixture(scope="module")
def odd_answers(odd: OddModel) -> OddAnswers:
    return in_fresh_process(speak_three_ways, str(odd.path))


def speak_three_ways(path: str) -> OddAnswers:
    with RowsEngine(path) as engine:
        prompts = record_prompts(engine)

        def ask(requests: Sequence[dict[str, Any]]) -> list[Spoken]:
            answers = engine.ask(requests)
            return [Spoken(prompts[key_of(r["sampling_params"])], a) for r, a in zip(requests, answers, strict=True)]

        alone = []
        for request in ODD_REQUESTS:
            engine.flush_cache()
            alone += ask([request])
        engine.flush_cache()
        return OddAnswers(alone, at_once=ask(ODD_REQUESTS), from_cache=ask(ODD_REQUESTS))


def record_prompts(engine: RowsEngine) -> dict[tuple[int, bool], SpeechPrompt]:
    """By `key_of`: what the real processor hands to the scheduler from now on."""
    processor = engine._engine.tokenizer_manager.mm_processor
    pack = processor.process_mm_data_async
    prompts: dict[tuple[int, bool], SpeechPrompt] = {}

    async def pack_and_record(request_obj: Any, **arguments: Any) -> Any:
        key = key_of(request_obj.sampling_params)
        packed = await pack(request_obj=request_obj, **arguments)
        [item] = packed.mm_items
        prompts[key] = item.model_specific_data["speech"].prompt
        return packed

    processor.process_mm_data_async = pack_and_record
    return prompts


def key_of(settings: dict[str, Any]) -> tuple[int, bool]:
    return settings["sampling_seed"], settings["ignore_eos"]


def forced_logits(fused: Path, input_ids: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """What `benchmarks.forced_logits` writes for rows [S, 1 + n_vq]."""
    rows, out = folder / "rows.npz", folder / "out.npz"
    np.savez(rows, input_ids=input_ids)
    command = warm("-m", "sglang_moss.benchmarks.forced_logits", str(fused), str(rows), str(out))
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    with np.load(out) as arrays:
        return dict(arrays)


def reference_codes(odd: OddModel) -> list[np.ndarray]:
    """[T, n_vq] codes of each clip, and of all of them as one."""
    rate = odd.codec.config.sampling_rate
    waveforms = [prepare_reference(clip, rate, ReferenceLimits(), i) for i, clip in enumerate(CLIPS)]
    waveforms.append(concatenate_references(waveforms))
    return [odd.codec.encode([torch.from_numpy(w)])[0].numpy()[:, : odd.tokens.n_vq] for w in waveforms]


def built_prompt(
    folder: Path, tokens: SpecialTokens, clips: list[np.ndarray] | None, prompt_audio: np.ndarray | None
) -> SpeechPrompt:
    """The prompt of an odd request under the tokenizer in `folder`."""
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    mode = choose_mode(None, len(clips or ()))
    return build_prompt(read_script(SCRIPT), clips, prompt_audio, tokenizer, tokens, mode)


def assert_wav_is_what_the_codec_decodes(spoken: Spoken, model: Fused) -> None:
    """One-shot decoding of the prompt audio and the answer's frames, without the prompt audio's part."""
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(spoken.answer.wav_base64)), dtype="float32")
    prompt_codes, frames, shape = spoken.prompt.prompt_codes, spoken.answer.codes, model.codec.config
    whole = model.codec.decode(torch.from_numpy(np.concatenate([prompt_codes, frames]).astype(np.int64))).numpy()
    assert rate == shape.sampling_rate
    assert len(samples) == len(frames) * shape.frame_samples
    assert spoken.answer.meta["audio_seconds"] == len(samples) / rate
    assert 0.05 < np.abs(samples).max() < 1, "a silent or clipped waveform would show nothing"
    np.testing.assert_allclose(samples, whole[len(prompt_codes) * shape.frame_samples :], atol=STEP, rtol=0)


def test_made_codecs_have_the_layout_of_the_published_one():
    assert codec_shapes(config_dict()) == {name: tuple(t.shape) for name, t in checkpoint_tensors().items()}


def test_teacher_forced_logits_of_32_codebooks_equal_the_reference(nvq32: Fused, tmp_path: Path):
    expected = golden_arrays("lm/nvq32")
    actual = forced_logits(nvq32.path, expected["teacher_forced.input_ids"], tmp_path)
    for name in ("text_logits", "audio_logits"):
        np.testing.assert_allclose(actual[name], expected[f"teacher_forced.{name}"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("case", NVQ32_CASES, ids=lambda case: case.key)
def test_greedy_rows_of_32_codebooks_equal_the_reference(case: GreedyCase, nvq32_answers: dict[str, Spoken]):
    answer = nvq32_answers[case.key].answer
    assert answer.error is None
    assert len(case.frames) > 0
    assert answer.text_ids == case.text_ids
    np.testing.assert_array_equal(answer.codes, case.frames)


@pytest.mark.parametrize("case", NVQ32_CASES, ids=lambda case: case.key)
def test_waveforms_of_32_codebooks_are_what_the_codec_decodes(
    case: GreedyCase, nvq32: Fused, nvq32_answers: dict[str, Spoken]
):
    assert_wav_is_what_the_codec_decodes(nvq32_answers[case.key], nvq32)


def test_logits_equal_those_of_transformers(odd: OddModel, tmp_path: Path):
    rng = np.random.default_rng(0)
    text_ids = rng.integers(0, odd.config["language_config"]["vocab_size"], (60, 1))
    rows = np.hstack([text_ids, rng.integers(0, odd.tokens.pad_code + 1, (60, odd.tokens.n_vq))])
    text, audio = logits_by_transformers(odd.config, odd.tensors, torch.from_numpy(rows))
    actual = forced_logits(odd.path, rows, tmp_path)
    np.testing.assert_allclose(actual["text_logits"], text, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(actual["audio_logits"], audio[..., : odd.tokens.pad_code], atol=TOLERANCE, rtol=0)


def test_prompts_hold_the_ids_of_this_tokenizer_and_the_codes_of_this_codec(odd: OddModel, odd_answers: OddAnswers):
    *clips, prompt_audio = reference_codes(odd)
    golden_tokens = dataclasses.replace(GoldenCases(GOLDEN).tokens, n_vq=odd.tokens.n_vq, pad_code=odd.tokens.pad_code)
    for request, spoken in zip(ODD_REQUESTS, odd_answers.alone, strict=True):
        codes = (clips, prompt_audio) if request["audio_data"] else (None, None)
        expected = built_prompt(odd.path, odd.tokens, *codes)
        np.testing.assert_array_equal(spoken.prompt.rows, expected.rows)
        np.testing.assert_array_equal(spoken.prompt.prompt_codes, expected.prompt_codes)
        by_golden_ids = built_prompt(GOLDEN / "ttsd", golden_tokens, *codes).rows[:, 0]
        assert spoken.prompt.rows[:, 0].tolist() == [odd.moved[i] for i in by_golden_ids.tolist()]


def test_alone_at_once_and_from_the_cache_are_equal(odd_answers: OddAnswers):
    def outcomes(answers: list[Spoken]) -> list[Any]:
        return [one.answer.error or (one.answer.text_ids, one.answer.codes.tolist()) for one in answers]

    assert outcomes(odd_answers.at_once) == outcomes(odd_answers.alone)
    assert outcomes(odd_answers.from_cache) == outcomes(odd_answers.alone)
    assert all(one.answer.meta["cached_tokens"] > 0 for one in odd_answers.from_cache)
    assert len({one.answer.wav_base64 for one in odd_answers.alone}) == len(ODD_REQUESTS), "seeds must matter"


def test_answers_are_as_long_as_asked_for_or_end_by_themselves(odd: OddModel, odd_answers: OddAnswers):
    tokens, free_lengths = odd.tokens, set()
    for request, spoken in zip(ODD_REQUESTS, odd_answers.alone, strict=True):
        settings, answer = request["sampling_params"], spoken.answer
        assert answer.error is None
        assert answer.codes.min() >= 0
        assert answer.codes.max() < tokens.pad_code
        assert answer.text_ids[-tokens.n_vq - 1 :] == [tokens.delay_slot] * tokens.n_vq + [tokens.audio_end]
        if settings["ignore_eos"]:
            assert len(answer.codes) == settings["max_new_tokens"]
        else:
            assert answer.meta["finish_reason"] == {"type": "stop", "matched": tokens.audio_end}
            free_lengths.add(len(answer.codes))
    assert len(free_lengths) > 3


def test_waveforms_are_what_the_codec_decodes(odd: OddModel, odd_answers: OddAnswers):
    for spoken in odd_answers.at_once:
        assert_wav_is_what_the_codec_decodes(spoken, odd)


@pytest.mark.parametrize("answers", ["nvq32_answers", "odd_answers"], ids=["trusted", "not trusted"])
def test_python_files_of_a_checkpoint_are_neither_run_nor_needed(answers: str, request: pytest.FixtureRequest):
    assert request.getfixturevalue(answers)
    assert not request.getfixturevalue(answers.removesuffix("_answers")).marker.exists()
