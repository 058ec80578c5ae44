"""The tokenizer that SGLang gets for a fused checkpoint."""

from transformers import AutoTokenizer

from sglang_moss.processor import TokenizerAsProcessor


def test_the_end_of_a_turn_is_at_hand_without_a_look_into_the_vocabulary(fused_path):
    """SGLang asks for it after every row of every request."""
    ours = TokenizerAsProcessor.from_pretrained(str(fused_path))
    assert vars(ours)["eos_token_id"] == AutoTokenizer.from_pretrained(str(fused_path)).eos_token_id
