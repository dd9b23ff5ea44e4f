# Loops and hooks of training by epochs.
train_cfg = dict(type="EpochBasedTrainLoop")
val_cfg = dict(type="AveragedValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=100),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=True, max_keep_ckpts=3),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
