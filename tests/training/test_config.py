"""Settings: what is read, what the command line changes, and what is refused by name."""

import pytest
import yaml

from sglang_moss.training.config_file import all_keys, config_of, read_config
from sglang_moss.training.errors import TrainingError

pytestmark = pytest.mark.wide

NEEDED = ["model=a", "dataset=b", "output=c"]


def test_a_file_and_the_command_line(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump({"model": "a", "dataset": ["b", "d"], "output": "c", "packing": {"rows": 64}}))
    config = read_config(path, ["packing.per_step=3", "--optimizer.rate", "2e-4", "--loss.weights=[1, 16]"])
    assert (config.dataset, config.packing.rows, config.packing.per_step) == (("b", "d"), 64, 3)
    assert (config.rate, config.loss.weights) == (2e-4, (1, 16))
    assert config_of(config.to_dict()) == config


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--decay-all"], "optimizer.decay_all", True),
        (["--decay-all", "output=x"], "optimizer.decay_all", True),
        (["--loss-average", "upstream"], "loss.average", "upstream"),
        (["--checkpointing", "full"], "compute.checkpointing", "full"),
        (["loss.weights=null"], "loss.weights", None),
        (["rate=1e-5"], "optimizer.rate", 1e-5),
        (["--lora-rank=8"], "lora.rank", 8),
    ],
)
def test_short_names(words, key, value):
    found = read_config(None, [*NEEDED, *words]).to_dict()
    for part in key.split("."):
        found = found[part]
    assert found == value


def test_every_key_can_be_overridden():
    defaults = config_of({"model": "a", "dataset": "b", "output": "c"}).to_dict()

    def leaves(content, prefix=""):
        for name, value in content.items():
            yield from leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]

    values = dict(leaves(defaults))
    assert sorted(values) == sorted(all_keys())
    words = [f"{key}={yaml.safe_dump(list(v) if isinstance(v, tuple) else v)}" for key, v in values.items()]
    assert read_config(None, words).to_dict() == defaults


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the key 'model' is missing: say model=...; the key 'dataset' is missing"),
        ([*NEEDED, "pack.rows=3"], r"unknown key 'pack\.rows': did you mean packing\.rows\?"),
        ([*NEEDED, "zebra=3"], "unknown key 'zebra': known are model, dataset, "),
        ([*NEEDED, "every=3"], r"it may be validation\.every, samples\.every, checkpoints\.every"),
        ([*NEEDED, "packing.rows=x"], r"packing\.rows: .*integer.*, got 'x'"),
        ([*NEEDED, "packing.rows=0"], r"packing\.rows: .*greater than 0"),
        ([*NEEDED, "method=some"], "method: input should be 'full' or 'lora', got 'some'"),
        ([*NEEDED, "rate=0"], r"optimizer\.rate: .*greater than 0, got 0"),
        ([*NEEDED, "betas=[0.9]"], r"optimizer\.betas: expected more than 1 values$"),
        ([*NEEDED, "betas=[0.9, 1]"], r"optimizer\.betas\.1: .*less than 1, got 1"),
        ([*NEEDED, "stray"], "expected key=value or --key value, got 'stray'"),
    ],
)
def test_what_is_wrong_is_named(words, message):
    with pytest.raises(TrainingError, match=message):
        read_config(None, words)


def test_an_unknown_key_of_a_file_is_named(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("model: a\ndataset: b\noutput: c\npacking:\n  rowz: 3\n")
    with pytest.raises(TrainingError, match=r"unknown key 'packing\.rowz': did you mean packing\.rows\?"):
        read_config(path)
    path.write_text("model: a\ndataset: b\noutput: c\noptimiser: {rate: 1}\n")
    with pytest.raises(TrainingError, match=r"unknown key 'optimiser': did you mean optimizer\?"):
        read_config(path)
    path.write_text("model: a\ndataset: b\noutput: c\noptimizer: 3\n")
    with pytest.raises(TrainingError, match=r"^optimizer: expected keys and values, got 3$"):
        read_config(path)
    path.write_text("[1, 2]")
    with pytest.raises(TrainingError, match="expected keys and values, got list"):
        read_config(path)
    with pytest.raises(TrainingError, match="there is no such file of settings"):
        read_config(tmp_path / "absent.yaml")
