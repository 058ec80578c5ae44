"""Whose layers a step goes through: decoding through ours where they were asked for, all else through SGLang's."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sglang_moss.models.moss_ttsd import MossTTSDdelayWithCodec

B, D = 2, 4


def went_through(monkeypatch: pytest.MonkeyPatch, *, fused: bool, decodes: bool, extends: bool = False) -> str:
    """One step of a model that has nothing else; the name of the layers."""
    passed: list[str] = []
    model: Any = MossTTSDdelayWithCodec.__new__(MossTTSDdelayWithCodec)
    nn.Module.__init__(model)

    def layers(name: str) -> Any:
        def run(*operands: Any) -> Tensor:
            passed.append(name)
            assert any(operand is embeds for operand in operands)
            assert any(operand is positions for operand in operands)
            assert any(operand is batch for operand in operands)
            return embeds

        return run

    embeds, positions = torch.ones(B, D), torch.arange(B)
    mode = SimpleNamespace(is_extend=lambda: extends, is_decode=lambda: decodes)
    batch: Any = SimpleNamespace(req_pool_indices=torch.arange(B), forward_mode=mode, seq_lens=torch.ones(B))
    vars(model)["model"] = layers("SGLang's")
    model._layers = layers("ours") if fused else None
    model._step = SimpleNamespace(begin_step=lambda *_: embeds)
    model.slot_state = None
    monkeypatch.setattr(MossTTSDdelayWithCodec, "_tables", lambda _self: ())
    monkeypatch.setattr(MossTTSDdelayWithCodec, "_draw", lambda _self, hidden, *_: hidden)
    monkeypatch.setattr(MossTTSDdelayWithCodec, "_prefill", lambda self, *_: self.model(embeds, positions, batch))
    assert model.forward(torch.zeros(B), positions, batch).next_token_logits is embeds
    [name] = passed
    return name


def test_a_decoding_step_goes_through_the_layers_that_were_asked_for(monkeypatch):
    assert went_through(monkeypatch, fused=True, decodes=True) == "ours"
    assert went_through(monkeypatch, fused=False, decodes=True) == "SGLang's"


def test_all_other_steps_go_through_sglangs(monkeypatch):
    assert went_through(monkeypatch, fused=True, decodes=False, extends=True) == "SGLang's"
    assert went_through(monkeypatch, fused=True, decodes=False) == "SGLang's"
