"""The converters' command lines."""

import argparse
import hashlib
import importlib.util
import sys
from pathlib import Path

import pytest
import timm
import torch
from helpers.builders import MASK, VIT, classifier, segmentor
from helpers.contracts import close
from mmengine.config import Config
from mmseg.registry import MODELS
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from tvit_seg import FixedGate, ThinkingClassifier, ThinkingSwin, ThinkingViT
from tvit_seg.weights.io import read_checkpoint

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"


@pytest.fixture
def run(monkeypatch):
    def call(tool, *arguments):
        path = ROOT / "tools" / "convert" / f"{tool}.py"
        spec = importlib.util.spec_from_file_location(f"tool_{tool}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
        module.main()

    return call


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("path", sorted(DATA.glob("*_1h-2h.npz")), ids=lambda path: path.stem)
def test_references(run, tmp_path, path, suffix, reference, capsys):
    target = tmp_path / f"ours{suffix}"
    run("import_weights", path, target)
    assert "1H-2H" in capsys.readouterr().out
    found = read_checkpoint(target)
    assert found["meta"]["source"]["file"] == path.name
    assert found["meta"]["source"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert tuple(found["meta"]["backbone"]["thinking_stages"]) == (1, 2)

    given = reference(path.stem)
    backbone = ThinkingViT(**found["meta"]["backbone"], pretrained=str(target)).eval()
    backbone.init_weights()
    with torch.no_grad():
        for stage, output in enumerate(backbone.forward_stages(given["x"])):
            if f"logits{stage}" in given and not path.stem.startswith("dynamic"):
                close(output.logits, given[f"logits{stage}"], atol=1e-4)

    back = tmp_path / "theirs.pth"
    run("export_weights", target, back, "--layout", "authors")
    for name, value in read_checkpoint(back)["state_dict"].items():
        assert torch.equal(value.float(), given.weights[name]), name


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_reference_of_swin(run, tmp_path, suffix, reference, capsys):
    path = DATA / "thinkingswin.npz"
    target = tmp_path / f"ours{suffix}"
    with pytest.raises(SystemExit, match="name thinking_stages"):
        run("import_weights", path, target)
    run("import_weights", path, target, "--thinking-stages", "2,2", "2,4")
    assert "(2,2)H-(2,4)H" in capsys.readouterr().out
    found = read_checkpoint(target)
    assert found["meta"]["source"]["kind"] == "authors' ThinkingSwin weights"
    assert found["meta"]["source"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()

    given = reference(path.stem)
    backbone = ThinkingSwin(**found["meta"]["backbone"], pretrained=str(target)).eval()
    backbone.init_weights()
    with torch.no_grad():
        for stage, output in enumerate(backbone.forward_stages(given["x"])):
            close(output.logits, given[f"logits{stage}"], atol=1e-4)

    back, again = tmp_path / f"theirs{suffix}", tmp_path / f"again{suffix}"
    run("export_weights", target, back, "--layout", "authors")
    assert "lost" not in capsys.readouterr().out
    theirs = read_checkpoint(back)["state_dict"]
    assert theirs.keys() == given.weights.keys()
    assert all(torch.equal(theirs[name].float(), given.weights[name]) for name in theirs)
    run("import_weights", back, again)  # stages and slicing were recorded
    assert read_checkpoint(again)["meta"]["backbone"] == found["meta"]["backbone"]


def test_a_swin_of_timm_and_back(run, tmp_path, capsys):
    options = dict(img_size=64, embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4)
    theirs = SwinTransformer(**options, num_classes=10).eval()
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    run("import_weights", tmp_path / "timm.pth", tmp_path / "ours.safetensors")
    command = ("export_weights", tmp_path / "ours.safetensors", tmp_path / "plain.safetensors")
    run(*command, "--layout", "timm", "--stage", 0)
    said = capsys.readouterr().out
    assert "SwinTransformer(img_size=32," in said
    assert "lost" not in said
    found = read_checkpoint(tmp_path / "plain.safetensors")
    plain = SwinTransformer(**{**found["meta"]["model"], "img_size": 64}).eval()
    plain.load_state_dict(found["state_dict"])
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        close(plain(images), theirs(images))


def test_what_an_export_of_a_swin_loses(run, tmp_path, capsys):
    model = ThinkingSwin(depths=(1, 1), thinking_stages=((1, 2), (2, 4)), num_classes=3)
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    command = ("export_weights", tmp_path / "ours.pth", tmp_path / "theirs.pth")
    run(*command, "--layout", "authors")
    said = capsys.readouterr().out
    assert "lost: narrow stages: the authors' code slices them as slicing='leading'" in said
    assert "lost: the norms of the lower levels' maps" in said
    run(*command, "--layout", "authors", "--slicing", "leading")
    assert "narrow stages" not in capsys.readouterr().out
    run(*command, "--layout", "mmseg", "--stage", 1, "--thinking-stages", "1,2", "2,4")
    said = capsys.readouterr().out
    assert "lost: recycled tokens" in said
    assert "lost: the classification head" in said
    assert "norm0.weight" in read_checkpoint(tmp_path / "theirs.pth")["state_dict"]


def test_a_wider_swin_is_cropped(run, tmp_path, capsys):
    wide = ThinkingSwin(depths=(1, 1), thinking_stages=((4, 8),), window_size=4).eval()
    torch.save(wide.state_dict(), tmp_path / "wide.pth")
    command = ("import_weights", tmp_path / "wide.pth", tmp_path / "ours.pth")
    run(*command, "--thinking-stages", "2,4")
    assert "cropped" in capsys.readouterr().out
    found = read_checkpoint(tmp_path / "ours.pth")
    narrow = ThinkingSwin(**found["meta"]["backbone"]).eval()
    narrow.load_state_dict(found["state_dict"])
    assert narrow.embed_dims == 64
    with pytest.raises(SystemExit):
        run(*command, "--thinking-stages", "2;4")
    assert "must be heads such as 3" in capsys.readouterr().err


def timm_training(tmp_path, name="last.pth.tar"):
    """What timm's train script saves, with other raw than averaged weights."""
    model = classifier().backbone
    average = {key: value + 1 for key, value in model.state_dict().items()}
    args = argparse.Namespace(lr=5e-4, model="thinkingvit", mean=None)
    checkpoint = dict(arch="thinkingvit", epoch=299, args=args, optimizer={}, version=2)
    weights = dict(state_dict=model.state_dict(), state_dict_ema=average)
    torch.save({**checkpoint, **weights}, tmp_path / name)
    return tmp_path / name, model.state_dict(), average


def test_raw_and_averaged_with_the_recipe(run, tmp_path):
    source, raw, average = timm_training(tmp_path)
    for flag, expected, said in (
        (["--ema"], average, "averaged"),
        (["--raw"], raw, "raw"),
        ([], raw, "raw"),
    ):
        run("import_weights", source, tmp_path / "ours.safetensors", "--head-dim", 8, *flag)
        found = read_checkpoint(tmp_path / "ours.safetensors")
        for name, value in expected.items():
            assert torch.equal(found["state_dict"][name], value)
        assert found["meta"]["source"]["weights"] == said
        recipe = found["meta"]["recipe"]
        assert recipe["arch"] == "thinkingvit"
        assert recipe["epoch"] == 299
        assert recipe["args"] == dict(lr=5e-4, model="thinkingvit", mean="None")
    # a second conversion keeps the account
    run("import_weights", tmp_path / "ours.safetensors", tmp_path / "b.pth")  # heads were recorded
    again = read_checkpoint(tmp_path / "b.pth")["meta"]
    assert again["recipe"] == recipe
    assert again["source"]["converted_from"] == found["meta"]["source"]


def test_a_hub_export_wider_than_its_stages_is_cropped(run, tmp_path, capsys):
    wide = classifier(backbone=dict(thinking_stages=(1, 3, 4))).backbone.eval()
    weights = {k: v for k, v in wide.state_dict().items() if not k.startswith("recycle.1")}
    save_file(weights, tmp_path / "hub.safetensors")
    target = tmp_path / "ours.pth"
    command = ("import_weights", tmp_path / "hub.safetensors", target, "--head-dim", 8)
    run(*command, "--thinking-stages", 1, 3)
    assert "cropped" in capsys.readouterr().out
    found = read_checkpoint(target)
    backbone = ThinkingViT(**found["meta"]["backbone"]).eval()
    backbone.load_state_dict(found["state_dict"])
    assert backbone.embed_dims == 24
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for a, b in zip(backbone.forward_stages(images), wide.forward_stages(images), strict=False):
            close(a.logits, b.logits)


def test_a_classifier_is_cropped(run, tmp_path):
    wide = classifier(backbone=dict(thinking_stages=(1, 3, 4)))
    weights = {k: v for k, v in wide.state_dict().items() if "recycle.1" not in k}
    torch.save({"state_dict": weights}, tmp_path / "wide.pth")
    command = ("import_weights", tmp_path / "wide.pth", tmp_path / "ours.pth", "--head-dim", 8)
    run(*command, "--thinking-stages", 1, 3)
    found = read_checkpoint(tmp_path / "ours.pth")
    options = {**found["meta"]["backbone"], "type": "ThinkingViT"}
    narrow = ThinkingClassifier(options).eval()
    narrow.load_state_dict(found["state_dict"])
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        pairs = (model.backbone.forward_stages(images) for model in (narrow, wide))
        for a, b in zip(*pairs, strict=False):
            close(a.logits, b.logits)


def test_one_stage_for_timm_and_mmseg(run, tmp_path, capsys):
    model = classifier()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "ours.pth")
    command = ("export_weights", tmp_path / "ours.pth", tmp_path / "plain.safetensors")
    run(*command, "--layout", "timm", "--stage", 0, "--head-dim", 8)
    assert "lost" not in capsys.readouterr().out
    run("import_weights", tmp_path / "ours.pth", tmp_path / "again.pth", "--head-dim", 8)
    run(command[0], tmp_path / "again.pth", tmp_path / "b.pth", "--layout", "timm", "--stage", 0)
    recorded = read_checkpoint(tmp_path / "b.pth")["meta"]["model"]
    assert recorded == read_checkpoint(tmp_path / "plain.safetensors")["meta"]["model"]
    found = read_checkpoint(tmp_path / "plain.safetensors")
    plain = VisionTransformer(**found["meta"]["model"]).eval()
    plain.load_state_dict(found["state_dict"])
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        close(plain(images), model.think(images, FixedGate(0)).logits)
    run(*command, "--layout", "mmseg", "--stage", 1, "--head-dim", 8)
    said = capsys.readouterr().out
    assert "lost: recycled tokens" in said
    assert "lost: the classification head" in said


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "vit_tiny_patch16_224"])
def test_timm_models_keep_their_width(run, tmp_path, name):
    torch.save(timm.create_model(name, pretrained=False).state_dict(), tmp_path / "timm.pth")
    run("import_weights", tmp_path / "timm.pth", tmp_path / "ours.pth")
    backbone = read_checkpoint(tmp_path / "ours.pth")["meta"]["backbone"]
    assert backbone["thinking_stages"] == (3,)
    assert backbone["img_size"] == 224


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        (
            {"conv1.weight": torch.zeros(1)},
            [],
            r"unknown kind; looked for .*alpha\.N.* Found conv1",
        ),
        (None, ["--thinking-stages", "4", "6"], r"stages of \[32, 48\] channels do not fit"),
        (
            None,
            ["--thinking-stages", "2", "3"],
            "only backbones and classifiers can be cropped: .* decode_head",
        ),
    ],
)
def test_bad_input_ends_in_one_line(run, tmp_path, weights, options, message):
    if weights is None:
        weights = segmentor(backbone=dict(thinking_stages=(4,))).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(SystemExit, match=message):
        run("import_weights", tmp_path / "w.pth", tmp_path / "o.pth", "--head-dim", 8, *options)
    assert not (tmp_path / "o.pth").exists()


def test_a_stage_is_needed_for_plain_models(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("export_weights", "a", "b", "--layout", "timm")
    assert "--stage goes with" in capsys.readouterr().err


@torch.no_grad()
def test_one_stage_of_a_nested_segmentor(run, tmp_path, capsys):
    model = segmentor(head=MASK, nested_head=True)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "ours.pth")
    parts = dict(backbone=VIT, decode_head=MASK, test_cfg=dict(mode="whole"))
    config = dict(type="ThinkingEncoderDecoder", nested_head=True, **parts)
    Config(dict(model=config)).dump(tmp_path / "config.py")
    command = ("export_weights", tmp_path / "ours.pth", tmp_path / "plain.pth")
    command += ("--layout", "mmseg", "--stage", 0, "--head-dim", 8)
    run(*command)
    assert "lost: the decode head" in capsys.readouterr().out
    run(*command, "--config", tmp_path / "config.py")
    assert "lost: the decode head" not in capsys.readouterr().out
    found = read_checkpoint(tmp_path / "plain.pth")
    options = found["meta"]["model"]
    width = options["embed_dim"]
    theirs = MODELS.build(
        dict(
            type="EncoderDecoder",
            backbone=dict(
                type="VisionTransformer",
                img_size=(32, 32),
                patch_size=8,
                patch_bias=True,
                embed_dims=width,
                num_layers=options["depth"],
                num_heads=options["num_heads"],
                final_norm=True,
            ),
            decode_head={**MASK, "in_channels": width, "channels": width, "embed_dims": width,
                         "num_heads": 1},
            test_cfg=dict(mode="whole"),
        )
    ).eval()  # fmt: skip
    theirs.load_state_dict(found["state_dict"])
    images = torch.randn(2, 3, 32, 32)
    model.backbone.set_gate(dict(type="FixedGate", stage=0))
    close(
        theirs.encode_decode(images, [dict(img_shape=(32, 32))] * 2),
        model.think(images).seg_logits,
        atol=1e-4,
    )


def test_an_unknown_width_of_heads_is_asked_for(run, tmp_path):
    command = ("export_weights", tmp_path / "ours.pth", tmp_path / "plain.pth")
    torch.save(classifier().state_dict(), tmp_path / "ours.pth")
    with pytest.raises(SystemExit, match="--head-dim"):
        run(*command, "--layout", "timm", "--stage", 0)


def test_the_quickstart_through_all_layouts(run, tmp_path, capsys):
    """The shipped checkpoint and all that is made of it record heads of 32 channels."""
    shipped = ROOT / "checkpoints/quickstart.pth"
    heads = read_checkpoint(shipped)["meta"]["backbone"]["num_heads"]
    run("export_weights", shipped, tmp_path / "theirs.pth", "--layout", "authors")
    assert "theirs.pth: the authors' layout" in capsys.readouterr().out
    run("import_weights", tmp_path / "theirs.pth", tmp_path / "back.pth")
    for source in (shipped, tmp_path / "back.pth"):
        run("export_weights", source, tmp_path / "plain.pth", "--layout", "timm", "--stage", 0)
        model = read_checkpoint(tmp_path / "plain.pth")["meta"]["model"]
        assert model["embed_dim"] // model["num_heads"] == 32
        assert model["num_heads"] < heads
    run("import_weights", tmp_path / "plain.pth", tmp_path / "one.pth")
    again = read_checkpoint(tmp_path / "one.pth")["meta"]["backbone"]
    assert again["num_heads"] == model["num_heads"]
    assert again["img_size"] == model["img_size"]
