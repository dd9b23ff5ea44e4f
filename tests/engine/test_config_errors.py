import math

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS as MMENGINE
from mmseg.registry import MODELS

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
        (dict(randomness=dict(seed=-1)), "randomness.seed=-1 must be None or an integer >= 0"),
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


def test_clear_errors_stay_as_they_are():
    with naming_components({}):
        with pytest.raises(ValueError, match=r"^thinking_stages=\(4, 2\) must be increasing"):
            MODELS.build(dict(type="ThinkingViT", thinking_stages=(4, 2)))
        with pytest.raises(KeyError, match="NoHead is not in the mmseg::model registry"):
            MODELS.build(dict(type="NoHead"))


def test_a_missing_scope_is_named():
    message = "Nobody is not in the .*no default_scope, such as"
    with pytest.raises(ConfigError, match=message), naming_components({}):
        MMENGINE.build(dict(type="mmengine.Nobody"))
