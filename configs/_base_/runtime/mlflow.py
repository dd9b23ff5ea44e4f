_base_ = "./tracked.py"
visualizer = dict(
    vis_backends=[
        dict(type="LocalVisBackend"),
        # a parameter holds 6000 characters: the whole config is an artifact
        dict(type="MLflowVisBackend", tracked_config_keys=("optim_wrapper", "train_cfg")),
    ]
)
