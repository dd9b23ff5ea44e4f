# A single stage of full width on a quarter of the tokens; pretrained patches are resized.
_base_ = "./segmenter_thinkingvit-small-3h-6h_linear_1xb16-800_labelmefacade-224x224.py"
model = dict(
    backbone=dict(
        patch_size=32,
        thinking_stages=(6,),
        num_classes=0,
        gate=dict(_delete_=True, type="FixedGate", stage=0),
    ),
    image_loss=None,
)
