import math

import pytest
from mmengine.config import Config

from tvit_seg.engine.config_errors import check_config
from tvit_seg.errors import ConfigError

DATA = dict(type="SceneDataset")


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
        (dict(default_scope=7), "default_scope=7 must be a name"),
        (dict(default_scope=""), "default_scope='' must be a name such as 'mmseg'"),
        (dict(custom_hooks=[3]), r"custom_hooks=\[3\] must be a list, each .* or None"),
        (dict(env_cfg=3), "env_cfg=3 must be a dict"),
        (dict(randomness={}), "randomness={} must have 'seed'"),
        (dict(optim_wrapper=dict(optimizer={})), "optim_wrapper.optimizer={} must have 'type'"),
        (dict(param_scheduler=[3]), r"param_scheduler=\[3\] must be the config of a schedule"),
        (dict(optim_wrapper=dict(lr=1)), "optim_wrapper={'lr': 1} must have 'optimizer'"),
        (dict(optim_wrapper=dict(optimizer=None)), "optim_wrapper.optimizer=None must be the conf"),
        (dict(train_dataloader=dict(dataset={})), "train_dataloader.dataset={} must have 'type'"),
        (dict(train_dataloader=dict(dataset=3)), "train_dataloader.dataset=3 must be the config"),
        (
            dict(val_dataloader=dict(dataset=DATA, num_workers="2")),
            "val_dataloader.num_workers='2' must be an integer",
        ),
        (
            dict(val_dataloader=dict(dataset=DATA, sampler="x")),
            "val_dataloader.sampler='x' must be the config of a sampler",
        ),
        (dict(env_cfg=dict(mp_cfg=None)), "env_cfg.mp_cfg=None must be a dict"),
        (dict(param_scheduler=[dict(begin=0)]), "param_scheduler={'begin': 0} must have 'type'"),
        (dict(val_dataloader=dict(batch_size=1)), "val_dataloader={'bat.*} must have 'dataset'"),
        (dict(randomness=dict(seed=-1)), "randomness.seed=-1 must be None or an integer >= 0"),
        (dict(env_cfg=dict(mp_cfg=dict(mp_start_method={}))), "mp_start_method={} must be None"),
        (
            dict(train_cfg=dict(type="X", val_interval="2")),
            "train_cfg.val_interval='2' must be an integer",
        ),
        (dict(val_evaluator=["mIoU"]), r"val_evaluator=\['mIoU'\] must be the config of a metric"),
        (dict(train_cfg=dict(max_epochs=2)), "train_cfg={'max_epochs': 2} must have 'type' or 'by"),
        (dict(auto_scale_lr=dict(enable=True)), "auto_scale_lr=.* must have 'base_batch_size'"),
        (
            dict(val_evaluator=[dict(type="IoUMetric"), dict(type="IoUMetric")]),
            "val_evaluator has two of type='IoUMetric' with prefix=None",
        ),
        (
            dict(param_scheduler=dict(type="PolyLR", by_epoch=False, convert_to_iter_based=True)),
            "must have by_epoch=True with convert_to_iter_based",
        ),
        (dict(optim_warpper=dict()), "has 'optim_warpper' but no 'optim_wrapper'"),
    ],
)
def test_what_no_config_means(kind, change, message):
    with pytest.raises(ConfigError, match=message):
        check_config(kind(change))


def test_what_configs_mean():
    threshold = dict(model=dict(gate=dict(threshold=math.inf)), max_iters=2, crop_size=(1, 2))
    loader = dict(dataset=DATA, batch_size=2, num_workers=0, pin_memory=True, drop_last=False)
    more = dict(collate_fn=dict(type="pseudo_collate"), sampler=dict(type="DefaultSampler"))
    check_config(dict(train_dataloader={**loader, **more}, val_dataloader=loader))
    metrics = [dict(type="IoUMetric"), dict(type="IoUMetric", prefix="other")]
    check_config(dict(val_evaluator=metrics, train_cfg=dict(by_epoch=True, max_epochs=1)))
    check_config(dict(log_level=20, param_scheduler=dict(type="PolyLR"), optim_wrapper=None))
    check_config(Config(dict(threshold, load_from=None, resume=False, randomness=dict(seed=3))))


def test_what_must_be_there():
    cfg = dict(train_dataloader=None, val_cfg={})
    check_config(cfg)
    with pytest.raises(ConfigError, match=r"^the config has no train_dataloader, no model$"):
        check_config(cfg, ("val_cfg", "train_dataloader", "model"))
