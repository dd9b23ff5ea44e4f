import argparse
import io
import pickle
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch
from helpers import poison
from helpers import poison_pickles as pickles
from torch import nn

from tvit_seg.weights import pickle_walk
from tvit_seg.weights.limits import DTYPES
from tvit_seg.weights.pickle_walk import find_foreign


@pytest.fixture
def found(tmp_path):
    """What is found in a file that torch writes of something, or in one of opcodes."""

    def find(content, zipped=True):
        path = tmp_path / "w.pth"
        if isinstance(content, bytes):
            pickles.opcodes(content)(path, None)
        else:
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
        return find_foreign(path)

    return find


def trained():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 9])
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    return dict(
        state_dict=model.state_dict(),
        parameters=dict(model.named_parameters()),
        optimizer=optimizer.state_dict(),
        schedule=schedule.state_dict(),
        random=torch.get_rng_state(),
    )


WEIGHTS = {
    "of a training": trained(),
    "plain values": {"a": [1, 2**40, -(2**80), 1.5, True, None, "x", (1, (2, {3: 4})), 1 + 2j]},
    "keys": {"a": 1, 7: 1, 2**40: 1, -1: 1, True: 1, None: 1},
    "kinds of torch": {"a": [torch.float16, torch.Size([1, 2]), torch.device("cuda", 1)]},
    "what timm saves": {"args": argparse.Namespace(lr=0.1, betas=(0.9, 0.99)), "epoch": 3},
    "dicts": {"a": OrderedDict(b=Counter(x=1)), "c": Counter(), "d": OrderedDict()},
    "empty tensors": {"a": torch.zeros(0), "b": torch.zeros(0, dtype=torch.int8), "c": []},
    "views": {
        "a": torch.zeros(9)[3:],
        "b": torch.zeros(2, 3).T,
        "c": torch.ones(2).cfloat().conj(),
    },
    "types": {str(kind): torch.zeros(4, dtype=torch.uint8).to(kind) for kind in DTYPES},
}


@pytest.mark.filterwarnings("ignore:ComplexHalf support")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_have_nothing_foreign(found, name, zipped):
    weights = WEIGHTS[name]
    assert found(weights, zipped) is None
    tied = torch.zeros(3)
    assert found({"once": tied, "twice": tied[1:], "weights": weights}, zipped) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (poison.Call(print, "x"), "builtins.print"),
        (poison.Call(bytearray, 9), "builtins.bytearray"),
        (b"x", "_codecs.encode"),
        ({1, 2}, "builtins.set"),
        (torch.zeros(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        (poison.Call(torch.Size, [1, 2]), "torch.Size of a list"),
        (poison.Call(torch.Size, ((1,), 2)), "torch.Size of a tuple"),
        (poison.Call(OrderedDict, [("a", 1)]), "collections.OrderedDict of too much"),
        (poison.Call(torch.device, 1.5), "torch.device of a value"),
        ({1.5: 1}, "a key that is no text or small number"),
        ({(1, 2): 1}, "a key that is no text or small number"),
        ({2**61: 1}, "a key that is no text or small number"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_everything_else_is_named(found, content, expected, zipped):
    assert found({"state_dict": {}, "x": content}, zipped) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"ctorch\nfloat32\n)R", "a call of torch.float32"),
        (b"ctorch.storage\nUntypedStorage\nK\x09\x85R", "a call of torch.storage.UntypedStorage"),
        (b"])R", "a call of a value"),
        (b"ctorch\nSize\n]R", "torch.Size of too much"),
        (b"cargparse\nNamespace\n)\x81]K\x01\x86b", "a state that is no dict"),
    ],
)
def test_calls_by_opcodes(found, content, expected):
    assert found(content) == expected


@pytest.mark.parametrize(
    "content",
    [b"N0", b"\x8c\x01a", b"\x8f", b"U\x01a2", b"]Q", b"NNNNNtQ", b"h\x63", b"(N", b"}(Nu"],
)
def test_damage(found, content):
    with pytest.raises((pickle.UnpicklingError, ValueError, LookupError, TypeError)):
        found(content)


def test_storages_have_one_identity(found):
    kind = pickles.text("storage") + b"ctorch\nFloatStorage\nX\x01\x00\x00\x00%c"
    identity = b"(" + kind + pickles.text("cpu") + b"K%ctQ"
    first, longer = identity % (b"a", b"\x01"), identity % (b"a", b"\x02")
    assert found(b"](" + first + first + b"e") is None
    assert found(b"](" + first + longer + b"e") == "storage a twice"
    assert found(b"](" + first + identity % (b"A", b"\x01") + b"e") == "storage A twice"


def test_how_many_values(found, monkeypatch):
    monkeypatch.setattr(pickle_walk, "VALUES", 1000)
    assert found({"x": [1] * 400}) is None
    assert found({"x": [[]] * 1100}) == "more than 1000 values"
    size = b"ctorch\nSize\nq\xfe(" + b"K\x01" * 200 + b"t\x85q\xffR"
    assert found(b"](" + size + b"e") is None
    assert found(b"](" + size + b"h\xfeh\xffR" * 9 + b"e") == "more than 1000 values"


def test_the_record_that_torch_reads(tmp_path):
    """Of two with the same name, in whatever case."""
    path = tmp_path / "w.pth"
    evil = io.BytesIO()
    torch.save({"x": poison.Call(print, "x")}, evil)
    torch.save({"x": 1}, path)
    with zipfile.ZipFile(evil) as archive:
        data = archive.read("archive/data.pkl")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("w/DATA.PKL", data)
    try:
        read = torch.load(path, weights_only=True)
    except pickle.UnpicklingError:
        read = None
    assert (find_foreign(path) is None) == (read == {"x": 1})
