"""How much arithmetic a step is: what the model has to do, not what is done again to save memory."""

from dataclasses import dataclass

from .model import ModelShape


@dataclass(frozen=True)
class StepSize:
    """What a step reads."""

    rows: int  # of examples; filler counts for nothing
    learnt_rows: int  # that have a label
    squares: int  # sum of the squares of the examples' lengths


def layer_parameters(shape: ModelShape) -> int:
    """Of the matrices of one layer."""
    c = shape.backbone
    heads, kv, size = c.num_attention_heads, c.num_key_value_heads or c.num_attention_heads, c.head_dim
    return c.hidden_size * (2 * heads + 2 * kv) * size + 3 * c.hidden_size * c.intermediate_size


def head_parameters(shape: ModelShape) -> int:
    """Of the text head and the audio heads."""
    return shape.backbone.hidden_size * (shape.backbone.vocab_size + shape.tokens.n_vq * shape.n_codes)


def model_parameters(shape: ModelShape) -> int:
    """Of the language model as it is stored; heads are no embeddings."""
    c = shape.backbone
    norms = (2 * c.num_hidden_layers + 1) * c.hidden_size + 2 * c.num_hidden_layers * c.head_dim
    return c.num_hidden_layers * layer_parameters(shape) + 2 * head_parameters(shape) + norms


def step_flops(shape: ModelShape, size: StepSize, *, frozen: bool) -> float:
    """Floating point operations of a step: 2 a parameter and row forward, 2 for the gradient of what came in, and 2
    for that of the parameter unless it is `frozen`; attention over the causal half."""
    c = shape.backbone
    passes = 4 if frozen else 6
    products = layer_parameters(shape) * c.num_hidden_layers * size.rows + head_parameters(shape) * size.learnt_rows
    # Two products of the forward pass, four of the backward pass, each 2 x s^2 / 2 x width.
    attention = 6 * c.num_hidden_layers * c.num_attention_heads * c.head_dim * size.squares
    return float(passes * products + attention)
