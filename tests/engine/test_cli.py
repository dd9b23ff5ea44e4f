"""The command line: options, resuming, and errors in one line."""

import argparse
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from tvit_seg.engine.cli import (
    add_common_arguments,
    friendly_errors,
    load_config,
    read_config,
    require_start,
    set_resume,
    use_amp,
)
from tvit_seg.engine.distributed import is_first_process
from tvit_seg.errors import ConfigError, DataError


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text("default_scope = 'mmseg'\ntrain_cfg = dict(max_iters=2)\n")
    return path


def parse(*arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    add_common_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


@pytest.mark.parametrize("option", ["novalue", "a=[1,(2]"])
def test_malformed_options(option, capsys):
    with pytest.raises(SystemExit):
        parse("c.py", "--cfg-options", option)
    assert option in capsys.readouterr().err


def test_options_and_work_dir(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "0")
    cfg = load_config(parse(config, "--cfg-options", "a.b=[1,2]", "train_cfg.max_iters=7"))
    assert cfg.a.b == [1, 2]
    assert cfg.train_cfg.max_iters == 7
    assert Path(cfg.work_dir) == Path("work_dirs/tiny")
    assert cfg.runner_type == "ThinkingRunner"
    assert load_config(parse(config, "--work-dir", "x")).work_dir == "x"
    with pytest.raises(ConfigError, match="--cfg-options do not fit"):
        load_config(parse(config, "--cfg-options", "default_scope.x=1"))


@pytest.mark.parametrize("text", ["model = dict(", "_base_ = ['nowhere.py']"])
def test_a_config_that_cannot_be_read(tmp_path, text):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.py cannot be read"):
        read_config(tmp_path / "broken.py", {})


@pytest.mark.parametrize("order", ["{imports}{base}", "{base}{imports}"])
def test_a_config_that_imports(tmp_path, order, config):
    """An import line above ``_base_`` makes it another dialect to mmengine."""
    lines = order.format(imports="import torch\n", base=f"_base_ = '{config}'\n")
    path = tmp_path / "importing.py"
    path.write_text(lines + "workers = 4 if torch.cuda.device_count() > 1000 else 0\n")
    cfg = read_config(path, {})
    assert (cfg.workers, cfg.train_cfg.max_iters) == (0, 2)
    assert "torch" not in cfg


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import torch\nn = 4 if torch.cuda.is_available() else 0\n", "import inside of a _base_"),
        ("n = m + 1\n", "NameError: name 'm' is not defined"),
        ("_base_ = './tiny.py'\nwork_dir = dict(a=1)\n", None),
        ("_base_ = './tiny.py'\ndefault_scope = dict(a=1)\n", "TypeError: default_scope="),
    ],
)
def test_a_config_that_fails_ends_in_one_line(tmp_path, config, text, message):
    path = tmp_path / "failing.py"
    path.write_text(text)
    if message is None:
        read_config(path, {})
        return
    with pytest.raises(ConfigError, match=message):
        read_config(path, {})
    with pytest.raises(ConfigError, match=r"nowhere\.py does not exist"):
        read_config(tmp_path / "nowhere.py", {})


def test_resume():
    cfg = Config({"load_from": "pretrained.pth"})
    set_resume(cfg, None)
    assert "resume" not in cfg
    set_resume(cfg, "auto")
    assert (cfg.resume, cfg.load_from) == ("auto", "pretrained.pth")
    set_resume(cfg, "other.pth")
    assert (cfg.resume, cfg.load_from) == (True, "other.pth")


def test_pruning_needs_a_start(tmp_path):
    model = dict(backbone=dict(pruning=dict(type="DynamicPruning")))
    cfg = Config(dict(model=model, work_dir=str(tmp_path), resume="auto"))
    with pytest.raises(ConfigError, match="starts from a trained model"):
        require_start(cfg)
    (tmp_path / "iter_2.pth").touch()
    require_start(cfg)
    require_start(Config(dict(cfg, resume=False, load_from="pretrained.pth")))


@pytest.mark.parametrize("gpu", [True, False])
def test_amp(monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    cfg = Config({"optim_wrapper": {"type": "OptimWrapper"}})
    use_amp(cfg)
    assert cfg.optim_wrapper.type == ("AmpOptimWrapper" if gpu else "AutocastOptimWrapper")
    with pytest.raises(ConfigError, match=r"optim_wrapper\.type must be"):
        use_amp(Config({"optim_wrapper": {"type": "Other"}}))


@pytest.mark.parametrize("kind", [ConfigError, FileNotFoundError])
def test_errors_in_one_line(monkeypatch, kind):
    with pytest.raises(SystemExit, match=r"^error: message$"), friendly_errors():
        raise kind("message")
    with pytest.raises(ValueError, match="a bug"), friendly_errors():
        raise ValueError("a bug")
    with pytest.raises(KeyboardInterrupt), friendly_errors():
        raise KeyboardInterrupt
    monkeypatch.setenv("TVIT_DEBUG", "1")
    with pytest.raises(kind, match="message"), friendly_errors():
        raise kind("message")


class Missing(torch.utils.data.Dataset):
    """One that cannot be read."""

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            return {}[index]
        except KeyError as error:
            raise self.kind("a/b.png: corrupt") from error


@pytest.mark.integration
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [DataError, FileNotFoundError])
def test_an_error_in_a_loading_process(kind, workers):
    with pytest.raises(SystemExit) as caught, friendly_errors():
        next(iter(torch.utils.data.DataLoader(Missing(kind), num_workers=workers)))
    assert str(caught.value) == "error: a/b.png: corrupt"


def test_first_process(monkeypatch):
    assert is_first_process()
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert not is_first_process()


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("test_cgf.fp16", "did you mean 'test_cfg'"),
        ("num_classes", "set model.backbone.num_classes, model.decode_head.num_classes"),
        ("train_dataloaders", "did you mean 'train_dataloader'"),
    ],
)
def test_an_option_without_effect_names_the_nearest_that_has_one(option, named):
    with pytest.warns(UserWarning, match=named):
        read_config("thinkingvit_scenes-96x96", {option: 12})


def test_options_with_an_effect_are_quiet(recwarn):
    read_config("thinkingvit_scenes-96x96", {"load_from": "x.pth", "model.nested_head": True})
    assert not [w for w in recwarn if "cfg-options" in str(w.message)]
