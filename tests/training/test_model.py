"""What a pack gives does not depend on how it is computed, on what else is in it, or on how a step is cut."""

import dataclasses

import numpy as np
import pytest
import torch
from golden_data import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_examples import InventedSpeech
from train_invented import small_config

from sglang_moss.training.attention import Segments, choose_backend
from sglang_moss.training.building import build
from sglang_moss.training.distributed import World
from sglang_moss.training.errors import TrainingError
from sglang_moss.training.golden.model_check import golden_model
from sglang_moss.training.loading import PackDataset, PackOrder
from sglang_moss.training.loss import channel_weights, loss_scales, pack_scales
from sglang_moss.training.pack import make_pack
from sglang_moss.training.rows import IGNORED, label_counts
from sglang_moss.training.run_plan import plan_run

pytestmark = pytest.mark.wide

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
EXAMPLES = InventedSpeech(6, seed=3)
N_VQ = EXAMPLES.tokens.n_vq
MODEL = golden_model(GOLDEN / "ttsd", "sdpa")


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> PackDataset:
    plan = plan_run(small_config(tmp_path_factory.mktemp("x"), packing={"pad_to": 1}), EXAMPLES)
    return plan.packs_of(plan.training)


def counts_of(chosen) -> np.ndarray:
    return label_counts(int(EXAMPLES.n_frames[list(chosen)].sum()), len(chosen), N_VQ)


def gradients(model, *packs) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    total = 0.0
    for pack in packs:
        loss, _ = model(pack)
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(a, b) -> None:
    """Within what float32 makes of another order of sums."""
    assert a[0] == pytest.approx(b[0], rel=1e-6)
    for name, gradient in a[1].items():
        torch.testing.assert_close(gradient, b[1][name], rtol=0, atol=1e-5 * float(gradient.abs().max()), msg=name)


@settings(max_examples=5)
@given(st.lists(st.sampled_from(range(6)), min_size=2, max_size=5, unique=True), st.integers(1, 4))
def test_packing_and_accumulation_change_nothing(packs, chosen, cut):
    scales = loss_scales(channel_weights((1, 32), N_VQ), counts_of(chosen))
    together = packs[PackOrder(tuple(chosen), scales)]
    parts = [chosen[:cut], chosen[cut:]]
    apart = [packs[PackOrder(tuple(part), scales)] for part in parts if part]
    alone = [packs[PackOrder((i,), scales)] for i in reversed(chosen)]
    expected = gradients(MODEL, together)
    assert_same(expected, gradients(MODEL, *apart))
    assert_same(expected, gradients(MODEL, *alone))


def test_filler_changes_nothing(packs):
    scales = loss_scales(None, counts_of([0, 1]))
    made = [packs.rows_of(i) for i in (0, 1)]
    plain, filled = make_pack(made, scales), make_pack(made, scales, pad_to=64, fill_rows=900)
    assert len(filled.rows) % 64 == 0
    assert len(filled.rows) >= 900
    assert filled.n_example_rows == len(plain.rows)
    assert int(filled.cu_seqlens[-1]) == len(filled.rows)
    assert_same(gradients(MODEL, plain), gradients(MODEL, filled))


def test_a_chunk_of_the_loss_may_be_of_any_size(packs):
    pack = packs[PackOrder((0, 2, 4), loss_scales(channel_weights((1, 32), N_VQ), counts_of([0, 2, 4])))]
    expected = gradients(MODEL, pack)
    try:
        for rows in (9, 50):
            MODEL.lm_heads.chunk_rows = rows
            assert_same(expected, gradients(MODEL, pack))
    finally:
        MODEL.lm_heads.chunk_rows = 2048


def test_the_loss_is_that_of_all_logits(packs):
    pack = packs[PackOrder((1, 3), loss_scales(channel_weights((1, 32), N_VQ), counts_of([1, 3])))]
    text, audio = MODEL.lm_heads(hidden_states(MODEL, pack))
    labels = pack.labels.long()
    plain = [torch.nn.functional.cross_entropy(text, labels[:, 0], ignore_index=IGNORED, reduction="sum")]
    plain += [
        torch.nn.functional.cross_entropy(audio[:, k], labels[:, k + 1], ignore_index=IGNORED, reduction="sum")
        for k in range(N_VQ)
    ]
    loss, sums = MODEL(pack)
    torch.testing.assert_close(sums, torch.stack(plain), rtol=1e-5, atol=1e-5)
    assert loss.item() == pytest.approx((torch.stack(plain) * pack.scales).sum().item(), rel=1e-5)


def hidden_states(model, pack) -> torch.Tensor:
    segments = Segments.of(model.attention, pack.cu_seqlens, pack.max_rows, len(pack.rows))
    return model._backbone(pack.rows, pack.positions, segments, None).index_select(0, pack.learnt)


@torch.no_grad()
def test_flex_attention_equals_sdpa(packs):
    pack = packs[PackOrder((0, 1, 5), np.ones(1 + N_VQ))]
    try:
        expected = MODEL(pack)
        MODEL.attention = "flex"
        torch.testing.assert_close(MODEL(pack), expected, rtol=1e-5, atol=1e-3)
    finally:
        MODEL.attention = "sdpa"


@pytest.mark.parametrize(
    ("name", "message"), [("varlen", "16 bit"), ("fa4", "16 bit"), ("best", "auto or one of sdpa, varlen, flex, fa4")]
)
def test_a_backend_that_does_not_work_here_is_refused(name, message):
    assert choose_backend("auto", CPU, torch.float32) == "sdpa"
    with pytest.raises(TrainingError, match=message):
        choose_backend(name, CPU, torch.float32)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(
    "compute",
    [{"checkpointing": "selective"}, {"checkpointing": "selective", "saved_share": 0}, {"checkpointing": "full"}],
    ids=str,
)
def test_checkpointing_changes_nothing(method, compute, packs, tmp_path):
    pack = packs[PackOrder((0, 1, 5), loss_scales(channel_weights((1, 32), N_VQ), counts_of([0, 1, 5])))]
    found = []
    for one in ({"checkpointing": "none"}, compute):
        model, trained = build(small_config(tmp_path, method=method, compute=one), ALONE, GOLDEN / "ttsd")
        loss, _ = model(pack)
        loss.backward()
        trained.reduce()
        found.append((loss.item(), {name: tensor.grad for name, tensor in trained.tensors.items()}))
    assert_same(*found)


def test_masters_add_up_in_float32(packs, tmp_path):
    """In 16 bit two micro-steps give what one gives, which they would not if gradients were kept in 16 bit."""
    config = small_config(tmp_path, compute={"dtype": "bfloat16"})
    model, trained = build(config, ALONE, GOLDEN / "ttsd")
    scales = loss_scales(channel_weights((1, 32), N_VQ), counts_of([0, 1]))
    one = packs[PackOrder((0,), scales)]
    for _ in range(3):
        model(one)[0].backward()
    thrice = {name: tensor.grad for name, tensor in trained.tensors.items()}
    trained.zero_grad()
    model(one)[0].backward()
    for name, tensor in trained.tensors.items():
        assert tensor.dtype == tensor.grad.dtype == torch.float32
        torch.testing.assert_close(thrice[name], 3 * tensor.grad, rtol=1e-6, atol=0)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.slow
def test_compiled_layers_give_the_same(packs, tmp_path):
    pack = packs[PackOrder((0, 1, 5), loss_scales(channel_weights((1, 32), N_VQ), counts_of([0, 1, 5])))]
    found = []
    for compiles in (False, True):
        compute = {"checkpointing": "selective", "compile": compiles}
        model, _ = build(small_config(tmp_path, compute=compute), ALONE, GOLDEN / "ttsd")
        found.append(gradients(model, pack))
    assert_same(*found)


def test_upstreams_average_is_the_mean_of_the_packs_means():
    counts = np.stack([label_counts(5, 1, 2), label_counts(50, 3, 2)])
    weights = channel_weights((1, 4), 2)
    np.testing.assert_allclose(weights, [1, 2, 2])
    upstream = pack_scales(weights, counts, "upstream")
    np.testing.assert_allclose(upstream, np.stack([loss_scales(weights, c) for c in counts]) / 2)
    np.testing.assert_allclose(pack_scales(weights, counts, "step")[0], loss_scales(weights, counts.sum(0)))
    np.testing.assert_allclose((loss_scales(None, counts.sum(0)) * counts.sum(0)).sum(), 1)


@pytest.mark.parametrize("weights", [(1,), (1, 2, 3), (-1, 2), (0, 0)])
def test_weights_of_another_number_are_refused(weights):
    with pytest.raises(TrainingError, match=r"loss\.weights"):
        channel_weights(weights, 4)


def test_a_row_of_another_tokenizer_is_refused(packs):
    broken = PackDataset(EXAMPLES, packs.tokenizer, packs.tokens, packs.template, "published")
    broken._lengths = broken._lengths + 1
    with pytest.raises(TrainingError, match="another tokenizer or template"):
        broken[PackOrder((0,), np.ones(1 + N_VQ))]


def test_workers_make_the_same_packs(packs):
    from sglang_moss.training.loading import Packs

    orders = [PackOrder((i, (i + 1) % 6), np.ones(1 + N_VQ)) for i in range(5)]
    alone, helped = (list(Packs(packs, iter(orders), CPU, n, 2)) for n in (0, 2))
    for one, other in zip(alone, helped, strict=True):
        for field in dataclasses.fields(one):
            a, b = getattr(one, field.name), getattr(other, field.name)
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
