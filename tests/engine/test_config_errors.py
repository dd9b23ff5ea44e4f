import math

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS as MMENGINE
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS

from tvit_seg.datasets.check import DataError
from tvit_seg.engine.config_errors import ConfigError, check_config, naming_components


@pytest.mark.parametrize("kind", [dict, Config])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(a=dict(b=[1, math.nan])), r"a\.b\[1\]=nan is not a number"),
        (dict(model=dict(depth=10**12)), "model.depth=1000000000000 is beyond 2147483647"),
        (dict(load_from=["a.pth"]), r"load_from=\['a.pth'\] must be None or a path"),
        (dict(resume="yes"), "resume='yes' must be True or False"),
        (dict(log_level=""), "log_level='' must be one of CRITICAL"),
        (dict(default_scope=None), "default_scope=None must be a name"),
        (dict(randomness={}), "randomness={} must be a dict with a seed"),
        (dict(randomness=dict(seed=-1)), "randomness.seed=-1 must be None or an integer >= 0"),
        (dict(env_cfg=dict(mp_cfg=dict(mp_start_method={}))), "mp_start_method={} must be None"),
        (dict(train_cfg=dict(val_interval="2")), "train_cfg.val_interval='2' must be an integer"),
        (dict(val_evaluator=["mIoU"]), r"val_evaluator=\['mIoU'\] must be the config of a metric"),
        (dict(optim_warpper=dict()), "has 'optim_warpper' but no 'optim_wrapper'"),
    ],
)
def test_what_no_config_means(kind, change, message):
    with pytest.raises(ConfigError, match=message):
        check_config(kind(change))


def test_what_configs_mean():
    threshold = dict(model=dict(gate=dict(threshold=math.inf)), max_iters=2, crop_size=(1, 2))
    check_config(Config(dict(threshold, load_from=None, resume=False, randomness=dict(seed=3))))


def test_a_component_and_its_arguments_are_named():
    head = dict(type="FCNHead", in_channels="many", channels=8, num_classes=2)
    cfg = Config(dict(model=dict(heads=[head])))
    message = r"model\.heads\[0\]=FCNHead\(in_channels='many', channels=8.* cannot be built: "
    with pytest.raises(ConfigError, match=message), naming_components(cfg):
        MODELS.build(cfg.model.heads[0])
    with pytest.raises(AssertionError):  # as without, afterwards
        MODELS.build(cfg.model.heads[0])


def test_our_own_messages_are_kept(tmp_path):
    cfg = Config(dict(model=dict(type="ThinkingViT", thinking_stages=(4, 2))))
    message = (
        r"^model=ThinkingViT\(.*\) cannot be built: thinking_stages=\(4, 2\) must be increasing"
    )
    with naming_components(cfg):
        with pytest.raises(ConfigError, match=message):
            MODELS.build(cfg.model)
        with pytest.raises(ConfigError, match=r"NoHead is not in the mmseg::model registry\.$"):
            MODELS.build(dict(type="NoHead"))
        with pytest.raises(DataError, match="not found"):
            DATASETS.build(dict(type="TimmDataset", data_root=str(tmp_path / "nowhere")))


def test_a_missing_scope_is_named():
    init_default_scope("mmengine")  # as mmengine does without one
    message = "Nobody is not in the .* default_scope=None is no known one, such as 'mmseg'"
    with pytest.raises(ConfigError, match=message), naming_components({}):
        MMENGINE.build(dict(type="Nobody"))
