# For training from scratch on a CPU.
_base_ = "./upernet.py"
# groups of four channels: the pyramid pools to one position, where one channel has no variance
norm_cfg = dict(num_groups=8)
decode_head = dict(channels=32, dropout_ratio=0.0, norm_cfg=norm_cfg)
auxiliary_head = dict(channels=32, dropout_ratio=0.0, norm_cfg=norm_cfg)
