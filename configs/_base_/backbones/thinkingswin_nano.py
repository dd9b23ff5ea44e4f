# For minutes of training on a CPU.
_base_ = "./thinkingswin_mini.py"
backbone = dict(depths=(2, 2, 2, 2))
