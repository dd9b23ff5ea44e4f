_base_ = "./tracked.py"
visualizer = dict(
    vis_backends=[
        dict(type="LocalVisBackend"),
        dict(
            type="MLflowVisBackend",
            exp_name="tvit_seg",
            tracking_uri="sqlite:///mlflow.db",  # MLflow 3 refuses mmengine's default, a folder
            tracked_config_keys=("optim_wrapper", "train_cfg"),  # a parameter is short
        ),
    ]
)
