# For minutes of training on a CPU.
_base_ = "./thinkingswin_mini.py"
backbone = dict(
    depths=(2, 2, 2, 2),
    # close to the median entropy on the embedded dataset: about half of its scenes think on
    gate=dict(threshold=0.49),
)
