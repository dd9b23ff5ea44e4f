_base_ = "./tracked.py"
visualizer = dict(
    vis_backends=[
        dict(type="LocalVisBackend"),
        dict(type="WandbVisBackend", init_kwargs=dict(mode="offline", project="tvit_seg")),
    ]
)
