"""The sampling rule against the reference's probability vectors, and what draws may depend on."""

import pytest
import torch
from golden_data import golden_arrays, golden_json
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_moss.step.eager import NOT_FINITE, mark_not_finite
from sglang_moss.step.sampling import draw, filtered_probs, penalise, scale, uniform

CASES = golden_json("lm/sampling")["cases"]
ARRAYS = golden_arrays("lm/sampling")


def probs_of(case: dict) -> torch.Tensor:
    logits = torch.from_numpy(ARRAYS[f"{case['i']}.logits"]).reshape(1, -1)
    seen = torch.zeros_like(logits, dtype=torch.bool)
    seen[0, torch.from_numpy(ARRAYS[f"{case['i']}.prev_tokens"]).long().reshape(-1)] = True
    temperature = torch.tensor([case["temperature"]])
    scaled = penalise(scale(logits, temperature), seen, torch.tensor([case["repetition_penalty"]]))
    top_k = torch.tensor([case["top_k"] or 0])
    top_p = torch.tensor([1.0 if case["top_p"] is None else case["top_p"]])
    return filtered_probs(scaled, temperature, top_k, top_p)[0]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['i']}-{c['kind']}")
def test_probabilities_equal_the_reference(case):
    expected = torch.from_numpy(ARRAYS[f"{case['i']}.hf_probs"]).reshape(-1)
    torch.testing.assert_close(probs_of(case), expected, atol=1e-5, rtol=0)


def test_a_batch_of_mixed_settings_equals_each_line_alone():
    logits = torch.randn(7, 61, generator=torch.Generator().manual_seed(1))
    temperature = torch.tensor([0.0, 0.5, 1.0, 1.5, 1.1, -1.0, 2.0])
    top_k = torch.tensor([0, 1, 5, 50, 100, 3, -1])
    top_p = torch.tensor([0.5, 1.0, 0.9, 0.1, 1.0, 0.2, 0.99])
    together = filtered_probs(scale(logits, temperature), temperature, top_k, top_p)
    for i in range(7):
        line = slice(i, i + 1)
        alone = filtered_probs(scale(logits[line], temperature[line]), temperature[line], top_k[line], top_p[line])
        torch.testing.assert_close(together[line], alone, atol=0, rtol=0)


def test_greedy_takes_the_largest_logit_whatever_the_other_settings():
    logits = torch.randn(4, 33, generator=torch.Generator().manual_seed(2))
    greedy = torch.zeros(4)
    probs = filtered_probs(
        scale(logits, greedy), greedy, torch.tensor([0, 7, 1, 33]), torch.tensor([1.0, 0.1, 1.0, 0.5])
    )
    assert torch.equal(probs.argmax(-1), logits.argmax(-1))
    assert torch.equal(probs.amax(-1), torch.ones(4))


@given(seed=st.integers(0, 2**63 - 1), row=st.integers(0, 45_000), channel=st.integers(0, 32))
@settings(max_examples=200)
def test_uniform_is_in_range_and_equals_splitmix64(seed, row, channel):
    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    gamma = 0x9E3779B97F4A7C15
    bits = mix((seed + gamma) % 2**64)
    bits = mix((bits + (row + 1) * gamma) % 2**64)
    bits = mix((bits + (channel + 1) * gamma) % 2**64)
    value = uniform(torch.tensor(seed), torch.tensor(row), torch.tensor(channel)).item()
    assert value == (bits >> 40) / 2**24
    assert 0 <= value < 1


def test_uniforms_of_neighbouring_rows_channels_and_seeds_are_spread_evenly():
    seeds, rows, channels = torch.arange(40)[:, None, None], torch.arange(50)[:, None], torch.arange(17)
    values = uniform(seeds, rows, channels).flatten().double()
    assert abs(values.mean().item() - 0.5) < 0.01
    histogram = torch.histc(values.float(), bins=16, min=0, max=1)
    expected = values.numel() / 16
    chi_square = ((histogram - expected) ** 2 / expected).sum().item()
    assert chi_square < 37.7  # 99.9th percentile at 15 degrees of freedom


def test_draw_follows_the_probabilities_and_never_takes_a_dropped_token():
    probs = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    uniforms = torch.arange(4096) / 4096
    tokens = draw(probs.expand(4096, -1), uniforms)
    assert torch.bincount(tokens, minlength=6).tolist() == [0, 1024, 0, 2048, 1024, 0]
    largest = torch.tensor([1 - 2.0**-24])
    assert draw(probs[None], largest).item() == 4


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_rows_of_logits_that_are_no_numbers_are_marked_and_others_left_alone(bad):
    logits = torch.randn(4, 3, 9, generator=torch.Generator().manual_seed(0))
    logits[1, 2, 8] = bad
    logits[3, 0] = bad
    rows = torch.arange(16).reshape(4, 4)
    marked = mark_not_finite(rows.clone(), logits)
    assert marked[:, 1].tolist() == [1, NOT_FINITE, 9, NOT_FINITE]
    assert torch.equal(marked[:, [0, 2, 3]], rows[:, [0, 2, 3]])
