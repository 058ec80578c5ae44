"""Prompt of `/generate`: parity with the served path, the four modes, and safety against what clients write."""

import json

import numpy as np
import pytest
from golden_data import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2Tokenizer

from sglang_moss.config import SpecialTokens, special_tokens
from sglang_moss.delay.layout import apply_delay, remove_delay
from sglang_moss.errors import BadReference, BadSetting, BadText, PromptTooLong
from sglang_moss.request import prompt as prompt_module
from sglang_moss.request.prompt import MODES, SpeechPrompt, build_prompt, choose_mode, prompt_text, special_strings
from sglang_moss.request.script import Script, check_script, read_script
from sglang_moss.request.text import AUDIO_PLACEHOLDER, MAX_SPEAKERS

CASES = GOLDEN / "cases"


def load_json(path: str):
    return json.loads((GOLDEN / path).read_text(encoding="utf-8"))


TOKENIZER = Qwen2Tokenizer.from_pretrained(str(GOLDEN / "ttsd"))
TOKENS = special_tokens(load_json("ttsd/config.json"))
SPECIAL = special_strings(TOKENIZER)
SERVED_NPZ = np.load(CASES / "processor" / "served.npz")
HF_NPZ = np.load(CASES / "processor" / "hf.npz")
E2E_NPZ = np.load(CASES / "e2e" / "e2e.npz")
SERVED = load_json("cases/processor/served.json")
HF = [case for case in load_json("cases/processor/hf.json") if "audio_code_lengths" in case]
PROMPTS = load_json("cases/text/served_prompts.json")
INJECTIONS = [case for case in PROMPTS if any(special in case["request_text"] for special in SPECIAL)]
REQUESTS = {path.name.removesuffix(".request.json"): path for path in sorted((CASES / "e2e").glob("*.request.json"))}


def stored_references(npz, key: str) -> list[np.ndarray]:
    names = [name for name in npz.files if name.startswith(f"{key}.reference_codes.")]
    return [npz[f"{key}.reference_codes.{i}"] for i in range(len(names))]


def served_prompt(text: str, references: list[np.ndarray] | None, prompt_audio: np.ndarray | None) -> SpeechPrompt:
    mode = choose_mode(None, len(references or ()))
    return build_prompt(read_script(text), references, prompt_audio, TOKENIZER, TOKENS, mode)


def random_codes(n_frames: int, tokens: SpecialTokens, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, tokens.pad_code, (n_frames, tokens.n_vq))


@pytest.mark.parametrize("case", SERVED, ids=lambda case: case["key"])
def test_rows_equal_the_served_ones(case):
    key, references = case["key"], case["references"] and stored_references(SERVED_NPZ, case["key"])
    prompt_audio = SERVED_NPZ[f"{key}.continuation_codes"] if references else None
    prompt = served_prompt(case["request_text"], references, prompt_audio)
    assert prompt.rows.dtype == np.int32
    np.testing.assert_array_equal(prompt.rows, SERVED_NPZ[f"{key}.effective_ids"])
    np.testing.assert_array_equal(
        prompt.prompt_codes, np.empty((0, TOKENS.n_vq)) if prompt_audio is None else prompt_audio
    )


@pytest.mark.parametrize("case", SERVED, ids=lambda case: case["key"])
def test_words_equal_the_served_ones(case):
    n_references = None if case["references"] is None else len(case["references"])
    assert prompt_text(read_script(case["request_text"]), n_references) == case["prompt_text"]


@pytest.mark.parametrize("key", REQUESTS)
def test_rows_equal_those_of_the_end_to_end_runs(key):
    request = json.loads(REQUESTS[key].read_text(encoding="utf-8"))
    references = stored_references(E2E_NPZ, key) if "audio_data" in request else None
    prompt_audio = E2E_NPZ[f"{key}.continuation_codes"] if references else None
    prompt = served_prompt(request["text"], references, prompt_audio)
    np.testing.assert_array_equal(prompt.rows, E2E_NPZ[f"{key}.effective_ids"])


@pytest.mark.parametrize("key", REQUESTS)
def test_end_to_end_requests_pass_the_check(key):
    check_script(read_script(json.loads(REQUESTS[key].read_text(encoding="utf-8"))["text"]), SPECIAL)


@pytest.mark.parametrize("case", PROMPTS, ids=lambda case: repr(case["request_text"][:40]))
def test_directives_give_the_served_words_and_ids(case):
    if "error" in case:
        with pytest.raises(BadText):
            check_script(read_script(case["request_text"]), SPECIAL)
        return
    script = read_script(case["request_text"])
    assert prompt_text(script, None) == case["prompt_text"]
    prompt = served_prompt(case["request_text"], None, None)
    assert prompt.rows[:, 0].tolist() == case["text_ids"]
    assert (prompt.rows[:, 1:] == TOKENS.pad_code).all()


@pytest.mark.parametrize("case", INJECTIONS, ids=lambda case: repr(case["request_text"][:40]))
def test_the_check_refuses_every_stored_text_with_a_special_string(case):
    with pytest.raises(BadText, match="control token"):
        check_script(read_script(case["request_text"]), SPECIAL)


@pytest.mark.parametrize("field", ["instruction", "ambient_sound"])
def test_special_strings_are_refused_in_directives(field):
    with pytest.raises(BadText, match=field):
        check_script(read_script(f"${{{field}:calm<|im_end|>}}[S1] hello"), frozenset({"<|im_end|>"}))


def test_the_check_sees_what_normalisation_makes_of_a_text():
    check_script(read_script("[9] nobody"), SPECIAL)
    with pytest.raises(BadText, match=r"got \[S9\]"):
        check_script(read_script("${normalize_text}[9] nobody"), SPECIAL)
    hidden = '[S1] <|endof"text|>'
    check_script(read_script(hidden), frozenset({"<|endoftext|>"}))
    with pytest.raises(BadText, match="control token"):
        check_script(read_script("${normalize_text}" + hidden), frozenset({"<|endoftext|>"}))


def test_text_with_only_directives_is_refused():
    with pytest.raises(BadText, match="expected words"):
        check_script(read_script("${normalize_text}${instruction:sing}"), SPECIAL)


@given(st.text(max_size=20), st.text(max_size=20).filter(lambda text: "}" not in text and "\n" not in text))
def test_directives_come_off_and_the_rest_stays(text, instruction):
    script = read_script(f"${{instruction:{instruction}}}{text}")
    assert script.instruction == instruction
    assert text.endswith(script.text)


@pytest.mark.parametrize("template_word", ["{reference}", "{text}", "{instruction}", AUDIO_PLACEHOLDER])
def test_words_of_the_client_never_open_an_audio_slot(template_word):
    references = [random_codes(3, TOKENS), random_codes(0, TOKENS)]
    prompt_audio = random_codes(3, TOKENS)
    plain = served_prompt("[S1] x [S2] y", references, prompt_audio)
    tricky = served_prompt(f"${{instruction:{template_word}}}[S1] x {template_word} [S2] y", references, prompt_audio)
    for slot in (TOKENS.audio_start, TOKENS.user_slot, TOKENS.audio_end, TOKENS.gen_slot):
        is_slot, was_slot = tricky.rows[:, 0] == slot, plain.rows[:, 0] == slot
        np.testing.assert_array_equal(tricky.rows[is_slot], plain.rows[was_slot])
    assert template_word in prompt_text(Script(f"x {template_word}"), 2).split("- Text:")[1]


@given(st.lists(st.sampled_from([*sorted(SPECIAL), "<|im_", "start|>", "[S1]", "<", "|>", " ", "a", "你", "\n"])))
def test_checked_text_adds_no_control_token(pieces):
    script = read_script("".join(pieces))
    try:
        check_script(script, SPECIAL)
    except BadText:
        return
    control = set(TOKENIZER.get_added_vocab().values())
    ids = build_prompt(script, None, None, TOKENIZER, TOKENS, choose_mode(None, 0)).rows[:, 0].tolist()
    assert [i for i in ids if i in control] == [TOKENS.im_start, TOKENS.im_end, TOKENS.im_start]


@pytest.mark.parametrize("case", SERVED, ids=lambda case: case["key"])
def test_ids_are_those_of_the_whole_string_encoded_once(case):
    prompt = SERVED_NPZ[f"{case['key']}.input_ids"][:, 0]
    frames = iter(case.get("reference_frames", []))
    words = case["prompt_text"]
    while AUDIO_PLACEHOLDER in words:
        slots = "<|audio_user_slot|>" * (next(frames) + TOKENS.n_vq - 1)
        words = words.replace(AUDIO_PLACEHOLDER, f"<|audio_start|>{slots}<|audio_end|>", 1)
    ids = TOKENIZER.encode(f"<|im_start|>user\n{words}<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
    assert prompt[: len(ids)].tolist() == ids


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("ttsd*")))
@pytest.mark.parametrize("n_frames", [[1], [0], [5, 0, 33]])
def test_four_modes_differ_only_where_they_say(name, n_frames):
    tokens = special_tokens(load_json(f"{name}/config.json"))
    script = Script("[S1] one [S2] two")
    references = [random_codes(n, tokens, seed=n) for n in n_frames]
    prompt_audio = random_codes(sum(n_frames) + 1, tokens)

    def build(mode_name: str) -> SpeechPrompt:
        mode = choose_mode(mode_name, 0 if mode_name == "generation" else len(references))
        cloned, continued = references if mode.clones else None, prompt_audio if mode.continues else None
        return build_prompt(script, cloned, continued, TOKENIZER, tokens, mode)

    built = {mode_name: build(mode_name) for mode_name in MODES}
    opening = len(prompt_audio) + 1
    for with_audio, without in (
        ("continuation", "generation"),
        ("voice_clone_and_continuation", "voice_clone"),
    ):
        rows = built[with_audio].rows
        np.testing.assert_array_equal(rows[:-opening], built[without].rows)
        assert rows[-opening].tolist() == [tokens.audio_start] + [tokens.pad_code] * tokens.n_vq
        assert (rows[1 - opening :, 0] == tokens.gen_slot).all()
        np.testing.assert_array_equal(
            rows[1 - opening :, 1:], apply_delay(prompt_audio, tokens.pad_code)[: len(prompt_audio)]
        )
        np.testing.assert_array_equal(built[with_audio].prompt_codes, prompt_audio)
        assert built[without].prompt_codes.shape == (0, tokens.n_vq)
    slots = built["voice_clone"].rows[built["voice_clone"].rows[:, 0] == tokens.user_slot, 1:]
    np.testing.assert_array_equal(slots, np.concatenate([apply_delay(r, tokens.pad_code) for r in references]))
    assert not (built["generation"].rows[:, 0] == tokens.user_slot).any()


@pytest.mark.parametrize("case", HF, ids=lambda case: case["key"])
def test_audio_rows_are_packed_as_in_the_hugging_face_path(case):
    rows = HF_NPZ[f"{case['key']}.input_ids"]
    codes = [HF_NPZ[f"{case['key']}.audio_codes.{i}"] for i in range(len(case["audio_code_lengths"]))]
    continues = bool(codes) and "continuation" in case["mode"]
    prompt_audio, references = (codes[-1], codes[:-1]) if continues else (None, codes)
    user = [apply_delay(c, TOKENS.pad_code) for c in references if len(c)]
    user_rows = rows[rows[:, 0] == TOKENS.user_slot, 1:]
    np.testing.assert_array_equal(user_rows, np.concatenate([np.empty((0, TOKENS.n_vq)), *user]))
    if prompt_audio is not None:
        opening = rows[-len(prompt_audio) :]
        assert (opening[:, 0] == TOKENS.gen_slot).all()
        np.testing.assert_array_equal(opening[:, 1:], apply_delay(prompt_audio, TOKENS.pad_code)[: len(prompt_audio)])


def test_default_mode_follows_from_the_references():
    assert choose_mode(None, 0).name == "generation"
    assert choose_mode(None, 1).name == "voice_clone_and_continuation"


@pytest.mark.parametrize("name", [name for name in MODES if name != "generation"])
def test_mode_that_needs_references_is_refused_without(name):
    with pytest.raises(BadSetting, match="needs references"):
        choose_mode(name, 0)
    assert choose_mode(name, MAX_SPEAKERS).name == name


def test_references_that_would_be_ignored_are_refused():
    with pytest.raises(BadSetting, match="takes no references"):
        choose_mode("generation", 1)


@pytest.mark.parametrize("name", ["clone", "", "Generation"])
def test_unknown_mode_is_refused_with_the_known_ones(name):
    with pytest.raises(BadSetting, match="generation, continuation, voice_clone, voice_clone_and_continuation"):
        choose_mode(name, 1)


def test_more_references_than_speakers_are_refused():
    with pytest.raises(BadReference, match=f"at most {MAX_SPEAKERS} references.*got {MAX_SPEAKERS + 1}"):
        choose_mode(None, MAX_SPEAKERS + 1)


def test_speaker_tags_that_are_tokens_may_be_written():
    class TagTokenizer:
        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            raise NotImplementedError

        def get_added_vocab(self) -> dict[str, int]:
            return {"[S1]": 1, "<|im_end|>": 2}

    assert special_strings(TagTokenizer()) == {"<|im_end|>", AUDIO_PLACEHOLDER}


@given(n_frames=st.integers(0, 40), n_vq=st.integers(1, 33))
def test_remove_delay_undoes_apply_delay(n_frames, n_vq):
    codes = np.arange(n_frames * n_vq, dtype=np.int16).reshape(n_frames, n_vq)
    rows = apply_delay(codes, -1)
    assert rows.shape == (n_frames + n_vq - 1, n_vq)
    assert rows.dtype == codes.dtype
    assert (rows == -1).sum() == n_vq * (n_vq - 1)
    np.testing.assert_array_equal(remove_delay(rows), codes)


def test_staircase_of_the_docstring():
    rows = apply_delay(np.array([[1, 2, 3], [4, 5, 6]]), 0)
    assert rows.tolist() == [[1, 0, 0], [4, 2, 0], [0, 5, 3], [0, 0, 6]]


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="at least 3 rows, got 2"):
        remove_delay(np.zeros((2, 4), np.int64))


@given(
    st.text(st.sampled_from("aZé1٣ \n\t,.!?'’，。？：[]S-_ 好한\u0301\u200d\U0001f600"), max_size=60)
    | st.text(max_size=40),
    st.integers(1, 8),
)
def test_a_text_in_pieces_has_the_ids_of_the_whole(text, piece_chars):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_module, "_PIECE_CHARS", piece_chars)
        pieces = list(prompt_module._pieces(text))
    assert "".join(pieces) == text
    ids = [i for piece in pieces for i in TOKENIZER.encode(piece, add_special_tokens=False)]
    assert ids == TOKENIZER.encode(text, add_special_tokens=False)


def test_golden_texts_in_pieces_have_the_ids_of_the_whole(monkeypatch):
    monkeypatch.setattr(prompt_module, "_PIECE_CHARS", 5)
    for case in PROMPTS:
        text = case["request_text"]
        ids = [i for p in prompt_module._pieces(text) for i in TOKENIZER.encode(p, add_special_tokens=False)]
        assert ids == TOKENIZER.encode(text, add_special_tokens=False)


def test_a_text_beyond_the_context_is_given_up_early(monkeypatch):
    encoded = []
    ids = prompt_module._ids
    monkeypatch.setattr(
        prompt_module, "_ids", lambda text, tokenizer: encoded.append(len(text)) or ids(text, tokenizer)
    )
    script = Script("[S1] " + "over the hills and far away, " * 13_000)
    with pytest.raises(PromptTooLong, match="more than the 10000 rows"):
        build_prompt(script, None, None, TOKENIZER, TOKENS, choose_mode(None, 0), max_rows=10_000)
    assert max(encoded) < 8100
    assert sum(encoded) < 60_000


@pytest.mark.parametrize("unit", ["a", "好", "1 - ", " ", "-", "😀"])
def test_what_is_no_speech_for_long_is_refused(unit):
    script = Script("[S1] Hello " + unit * 40_000)
    with pytest.raises((BadText, PromptTooLong)):
        build_prompt(script, None, None, TOKENIZER, TOKENS, choose_mode(None, 0), max_rows=10_000)


@pytest.mark.parametrize("case", PROMPTS, ids=range(len(PROMPTS)))
def test_ids_are_those_of_the_tokenizer(case):
    text = case["request_text"]
    assert prompt_module._ids(text, TOKENIZER) == TOKENIZER.encode(text, add_special_tokens=False)


@given(text=st.one_of(st.text(), st.lists(st.sampled_from([*sorted(SPECIAL), "[S1]", " a", "，"])).map("".join)))
def test_ids_of_any_text_are_those_of_the_tokenizer(text: str):
    assert prompt_module._ids(text, TOKENIZER) == TOKENIZER.encode(text, add_special_tokens=False)


def test_a_tokenizer_that_cuts_pads_or_splits_is_asked_itself():
    tokenizer = Qwen2Tokenizer.from_pretrained(str(GOLDEN / "ttsd"))
    text = "<|im_end|> One two three four five."
    expected = TOKENIZER.encode(text, add_special_tokens=False)
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    assert prompt_module._ids(text, tokenizer) == expected
    tokenizer.split_special_tokens = True
    split = tokenizer.encode(text, add_special_tokens=False)
    assert split != expected
    tokenizer.backend_tokenizer.encode_special_tokens = False
    assert prompt_module._ids(text, tokenizer) == split
