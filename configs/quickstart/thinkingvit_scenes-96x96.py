# Trains from scratch on a CPU in minutes. Linear decoder: the mask head learns more slowly.
_base_ = [
    "../_base_/backbones/thinkingvit-mini_1h-4h.py",
    "../_base_/heads/segmenter_linear.py",
    "../_base_/datasets/scenes_96x96.py",
    "../_base_/schedules/adamw_700.py",
    "../_base_/runtime/default.py",
]
# about half of the scenes continue
gate = dict(type="PixelEntropyGate", threshold=0.445, resolution="token")
model = dict(
    type="ThinkingEncoderDecoder",
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        img_size=_base_.crop_size,
        patch_size=8,
        num_classes=_base_.num_classes,
        **{**_base_.backbone, "gate": gate},
    ),
    decode_head=dict(
        in_channels=_base_.out_channels,
        channels=_base_.out_channels,
        num_classes=_base_.num_classes,
        **_base_.decode_head,
    ),
    image_loss=dict(target="presence", loss_weight=0.5),
    test_cfg=_base_.inference,
)
