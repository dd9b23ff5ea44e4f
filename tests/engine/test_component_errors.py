import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS as MMENGINE
from mmengine.registry import OPTIMIZERS, init_default_scope
from mmseg.registry import DATASETS, MODELS, TRANSFORMS
from torch import nn

from tvit_seg.engine.component_errors import Components
from tvit_seg.errors import ConfigError, DataError


def test_a_component_its_arguments_and_the_reason_are_named():
    head = dict(type="FCNHead", in_channels="many", channels=8, num_classes=2)
    cfg = Config(dict(model=dict(heads=[head])))
    message = (
        r"^model\.heads\[0\]=FCNHead\(in_channels='many', channels=8, num_classes=2\) "
        r"cannot be built: AssertionError in `assert isinstance\(in_channels, int\)`$"
    )
    with pytest.raises(ConfigError, match=message), Components(cfg).naming():
        MODELS.build(cfg.model.heads[0])
    with pytest.raises(AssertionError):  # as without, afterwards
        MODELS.build(cfg.model.heads[0])


def test_our_own_arguments_are_of_the_types_in_the_signature():
    cfg = Config(dict(model=dict(type="ThinkingViT", img_size=["x", "y"], num_layers="2")))
    message = (
        r"^model=ThinkingViT\(.*\) cannot be built: img_size=\['x', 'y'\] must be an integer or "
        r"a list, each an integer; num_layers='2' must be an integer$"
    )
    with pytest.raises(ConfigError, match=message), Components(cfg).naming():
        MODELS.build(cfg.model)


class Strange:
    def __init__(self, size: int = 1):
        length = f"{size}"
        self.half = length / 2


def test_signatures_of_others_are_hints():
    message = (
        r"^other=Strange\(size='3'\) cannot be built: TypeError: unsupported operand .* in "
        r"`self.half = length / 2` \(by its signature size='3' must be an integer\)$"
    )
    cfg = dict(other=dict(type=Strange, size="3"))
    with pytest.raises(ConfigError, match=message), Components(cfg).naming():
        MODELS.build(cfg["other"])


def test_arguments_that_are_added_on_the_way_are_not_told():
    cfg = Config(dict(optimizer=dict(type="AdamW", lr="0.1")))
    message = r"^optimizer=AdamW\(lr='0.1'\) cannot be built: .* in `if not 0.0 <= lr:`$"
    with pytest.raises(ConfigError, match=message), Components(cfg).naming():
        OPTIMIZERS.build(dict(cfg.optimizer, params=[nn.Parameter(torch.zeros(1))]))


def test_our_own_messages_are_kept(tmp_path):
    cfg = Config(dict(model=dict(type="ThinkingViT", thinking_stages=(4, 2))))
    message = r"thinking_stages must be increasing, got \(4, 2\)$"
    with Components(cfg).naming():
        with pytest.raises(ConfigError, match=message):
            MODELS.build(cfg.model)
        with pytest.raises(ConfigError, match=r"NoHead is not in the mmseg::model registry\.$"):
            MODELS.build(dict(type="NoHead"))
        with pytest.raises(ConfigError, match=r"has no argument 'colour'$"):
            MODELS.build(dict(type="ThinkingViT", colour=1))
        with pytest.raises(DataError, match="not found"):
            DATASETS.build(dict(type="TimmDataset", data_root=str(tmp_path / "nowhere")))


def test_a_component_is_named_by_where_it_stands():
    flip = dict(type="RandomFlip", prob=2.0)
    upright = dict(flip, direction="vertical")
    cfg = Config(dict(a=[flip, upright], other=dict(prob=2.0)))

    def name(part):
        with pytest.raises(ConfigError) as caught, Components(cfg).naming():
            TRANSFORMS.build(part)
        return str(caught.value).partition("=")[0]

    assert name(cfg.a[0]) == "a[0]"
    assert name(cfg.a[1]) == "a[1]"
    assert name(dict(upright, direction=3)) == "a[0]"  # something was added
    assert name(dict(flip, prob="x")) == "transform"  # stands nowhere


def test_a_component_that_another_one_makes():
    resize = dict(type="RandomResize", scale=(8, 8), keep_ratio="yes")
    message = r"^transform in pipeline\[0\]=Resize\(.*\) cannot be built: keep_ratio='yes' must"
    components = Components(dict(pipeline=[resize]))
    with pytest.raises(ConfigError, match=message), components.naming():
        TRANSFORMS.build(resize)
    head = dict(type="FCNHead", in_channels=4, channels=4, num_classes=2, loss_decode=["x"])
    message = r"^head=FCNHead\(.*\) cannot be built: TypeError: cfg should be a dict"
    with pytest.raises(ConfigError, match=message), Components(dict(head=head)).naming():
        MODELS.build(head)


def test_what_fails_at_work_is_named():
    cfg = Config(dict(pipeline=[dict(type="RandomFlip", prob=1.0), dict(type="PackSegInputs")]))
    components = Components(cfg)
    with components.naming():
        flip = TRANSFORMS.build(cfg.pipeline[0])
    message = r"^pipeline\[0\]=RandomFlip\(prob=1.0\) does not work: KeyError: img in `.*\['img'\]"
    with pytest.raises(ConfigError, match=message), components.naming():
        flip({})
    with pytest.raises(KeyError), components.naming(lambda: False):
        flip({})
    with pytest.raises(KeyError), components.naming():
        {}["not a component's"]


def test_a_missing_scope_is_named():
    init_default_scope("mmengine")  # as mmengine does without one
    message = "Nobody is not in the .* default_scope=None is no known one, such as 'mmseg'"
    with pytest.raises(ConfigError, match=message), Components({}).naming():
        MMENGINE.build(dict(type="Nobody"))
