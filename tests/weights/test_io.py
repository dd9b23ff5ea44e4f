import argparse
import enum
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tvit_seg.errors import CheckpointError
from tvit_seg.weights.io import (
    get_state_dict,
    plain,
    read_checkpoint,
    which_weights,
    write_checkpoint,
)


class Malice:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class GetAttr:
    def __reduce__(self):
        return getattr, (torch.Tensor, "numpy")


@pytest.fixture
def weights():
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_zip_and_legacy_files(tmp_path, weights, zipped):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": weights}, path, _use_new_zipfile_serialization=zipped)
    read = read_checkpoint(path)
    torch.testing.assert_close(read["state_dict"], weights)


def test_reads_safetensors(tmp_path, weights):
    save_file(weights, tmp_path / "w.safetensors")
    torch.testing.assert_close(read_checkpoint(str(tmp_path / "w.safetensors")), weights)


def test_missing_file_and_url(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist"):
        read_checkpoint(tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="only local files"):
        read_checkpoint("https://example.com/w.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_truncated_file(tmp_path, weights, zipped, share):
    path = tmp_path / "w.pth"
    weights["large"] = torch.randn(100, 100)  # torch fails in other ways on larger files
    torch.save({"state_dict": weights}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    size = path.stat().st_size
    with pytest.raises(CheckpointError, match=rf"w\.pth \({size} bytes\) is truncated or not a"):
        read_checkpoint(path)


def test_damaged_safetensors(tmp_path, weights):
    path = tmp_path / "w.safetensors"
    save_file(weights, path)
    for content in (path.read_bytes()[:-4], b"", b"hello", b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="truncated or not a checkpoint"):
            read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_nobody_waits_for_a_pipe(tmp_path, suffix):
    os.mkfifo(tmp_path / f"w{suffix}")
    with pytest.raises(CheckpointError, match=r"w\.\w+ is no regular file"):
        read_checkpoint(tmp_path / f"w{suffix}")


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x00" * 64, os.urandom(999)])
def test_other_files(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="truncated or not a checkpoint"):
        read_checkpoint(tmp_path / "w.pth")


def test_not_a_dict(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds a list; a dict"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_file_is_not_executed(tmp_path, weights, zipped):
    path, marker = tmp_path / "w.pth", tmp_path / "marker"
    torch.save(
        {"state_dict": weights, "meta": Malice(marker)}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(CheckpointError, match=r"holds posix\.system, which is more than weights"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_malicious_bare_pickle_is_not_executed(tmp_path, protocol):
    path, marker = tmp_path / "w.pth", tmp_path / "marker"
    path.write_bytes(pickle.dumps({"state_dict": Malice(marker)}, protocol=protocol))
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not marker.exists()


def test_python_objects_are_refused(tmp_path):
    from mmengine.logging import HistoryBuffer

    path = tmp_path / "w.pth"
    torch.save({"log": HistoryBuffer()}, path)
    with pytest.raises(CheckpointError, match=r"holds .*HistoryBuffer, which is more"):
        read_checkpoint(path)
    torch.save({"state_dict": GetAttr()}, path)
    with pytest.raises(CheckpointError, match=r"holds (builtins\.)?getattr, which is more"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), path)
    with pytest.raises(CheckpointError, match="holds a TorchScript program"):
        read_checkpoint(path)


@pytest.mark.parametrize("key", ["state_dict", "model", "state_dict_ema", "model_ema", None])
def test_finds_the_weights(weights, key):
    assert get_state_dict({key: weights, "epoch": 1} if key else weights) == weights


def test_prefers_ema_and_strips_prefix(weights):
    averaged = {f"module.{name}": value + 1 for name, value in weights.items()}
    checkpoint = {"model": weights, "model_ema": averaged}
    assert get_state_dict(checkpoint) == weights
    assert get_state_dict(checkpoint, ema=True).keys() == weights.keys()
    assert get_state_dict({"model": weights}, ema=True) == weights


def test_no_weights():
    with pytest.raises(CheckpointError, match="has the keys epoch, optimizer"):
        get_state_dict({"epoch": 3, "optimizer": {}})


def test_plain_values_survive_weights_only(tmp_path):
    meta = {
        "classes": ("road", "car"),
        "palette": np.array([[1, 2, 3]], dtype=np.uint8),
        "best": np.float64(0.5),
        "iter": np.int64(7),
        "flag": np.bool_(True),
        "name": np.str_("x"),
        "none": None,
        "size": torch.Size([1, 2]),
        3: [1.5, torch.ones(2)],
    }
    write_checkpoint({"meta": meta}, tmp_path / "new" / "w.pth")
    read = read_checkpoint(tmp_path / "new" / "w.pth")["meta"]
    assert read["classes"] == ("road", "car")
    assert read["palette"] == [[1, 2, 3]]
    assert (read["best"], read["iter"], read["flag"], read["name"]) == (0.5, 7, True, "x")
    assert type(read["best"]) is float
    assert type(read["flag"]) is bool
    assert read[3][0] == 1.5


def test_plain_keeps_versions_of_layers(tmp_path):
    state_dict = nn.BatchNorm2d(2).state_dict()
    write_checkpoint({"state_dict": state_dict}, tmp_path / "w.pth")
    read = read_checkpoint(tmp_path / "w.pth")["state_dict"]
    assert isinstance(read, OrderedDict)
    assert read._metadata == state_dict._metadata


@pytest.mark.parametrize("key", [(1, 2), 1.5])
def test_plain_names_keys_that_are_not_read(key):
    with pytest.raises(TypeError, match=r"checkpoint\['meta'\] has the keys"):
        plain({"meta": {key: 1}})


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize("value", [Colour.RED, object(), len, {1, 2}, b"x", Path("x")])
def test_plain_names_what_it_cannot_keep(value):
    with pytest.raises(TypeError, match=r"checkpoint\['meta'\]\[1\] is a"):
        plain({"meta": [0, value]})


@pytest.mark.parametrize("failing", ["save", "replace", "interrupt"])
def test_old_file_survives_a_failure(tmp_path, weights, monkeypatch, failing):
    path = tmp_path / "w.pth"
    write_checkpoint({"state_dict": weights, "meta": 1}, path)

    def half(obj, file):
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt if failing == "interrupt" else OSError(28, "No space left")

    def no_rename(*args):
        raise OSError(28, "No space left")

    if failing == "replace":
        monkeypatch.setattr(Path, "replace", no_rename)
    else:
        monkeypatch.setattr(torch, "save", half)
    with pytest.raises((OSError, KeyboardInterrupt)):
        write_checkpoint({"state_dict": weights, "meta": 2}, path)
    assert read_checkpoint(path)["meta"] == 1
    assert os.listdir(tmp_path) == ["w.pth"]


def test_safetensors_keep_weights_and_plain_values(tmp_path, weights):
    checkpoint = {"meta": {"heads": [3, 6], "name": "x"}, "state_dict": weights}
    write_checkpoint(checkpoint, tmp_path / "w.safetensors")
    read = read_checkpoint(tmp_path / "w.safetensors")
    assert read["meta"] == checkpoint["meta"]
    torch.testing.assert_close(dict(read["state_dict"]), dict(weights))
    torch.testing.assert_close(load_file(tmp_path / "w.safetensors"), dict(weights))


@pytest.mark.parametrize("rest", [{}, {"state_dict": {"w": torch.ones(1)}, "best": torch.ones(1)}])
def test_safetensors_of_something_else_are_refused(tmp_path, rest):
    with pytest.raises(ValueError, match=r"w.safetensors: .*write a \.pth file"):
        write_checkpoint(rest, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_reads_arrays(tmp_path):
    np.savez(tmp_path / "w.npz", **{"param/a": np.ones(2, np.float16), "x": np.zeros(3)})
    assert get_state_dict(read_checkpoint(tmp_path / "w.npz"))["a"].tolist() == [1, 1]
    np.savez(tmp_path / "evil.npz", a=np.array([object()]))
    with pytest.raises(CheckpointError, match=r"holds Python objects in a\.npy"):
        read_checkpoint(tmp_path / "evil.npz")


def test_reads_what_timm_saves(tmp_path, weights):
    args = argparse.Namespace(lr=0.1, opt="adamw")
    torch.save({"state_dict": weights, "args": args, "arch": "vit"}, tmp_path / "w.pth.tar")
    assert read_checkpoint(tmp_path / "w.pth.tar")["args"] == args


def test_averages_of_mmengine(weights):
    raw = {f"module.{name}": value + 1 for name, value in weights.items()}
    raw["steps"] = torch.tensor(3)
    checkpoint = {"state_dict": weights, "ema_state_dict": raw}
    assert get_state_dict(checkpoint) == get_state_dict(checkpoint, ema=True) == weights
    found = get_state_dict(checkpoint, ema=False)
    assert found.keys() == weights.keys()
    name = next(iter(weights))
    torch.testing.assert_close(found[name], weights[name] + 1)
    said = [which_weights(checkpoint, ema) for ema in (None, True, False)]
    assert said == ["averaged", "averaged", "raw"]


def test_says_which_weights(weights):
    both = {"state_dict": weights, "state_dict_ema": weights}
    assert [which_weights(both, ema) for ema in (None, True, False)] == ["raw", "averaged", "raw"]
    assert which_weights({"model": weights}, True) == "only"


def test_names_in_messages_are_printable_and_short(tmp_path):
    path = tmp_path / "w.pth"
    for name in ("a\nb\x1b[31m\u202e", "k" * 10**5):
        torch.save({"state_dict": {name: torch.tensor(np.nan)}}, path)
        with pytest.raises(CheckpointError, match="NaN") as caught:
            read_checkpoint(path)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000
        with pytest.raises(CheckpointError, match="no weights found") as caught:
            get_state_dict({name: 1})
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000
