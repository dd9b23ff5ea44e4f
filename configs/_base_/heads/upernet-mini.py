# For training from scratch on a CPU.
_base_ = "./upernet.py"
# four channels in each group: the pyramid pools to a single position, where one has no variance
norm_cfg = dict(num_groups=8)
decode_head = dict(channels=32, dropout_ratio=0.0, norm_cfg=norm_cfg)
auxiliary_head = dict(channels=32, dropout_ratio=0.0, norm_cfg=norm_cfg)
