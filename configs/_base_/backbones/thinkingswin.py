# Common to all ThinkingSwin sizes; the other files here set widths, depths and thinking stages.
# A stage is written as its heads at each of the four levels.
backbone = dict(
    type="ThinkingSwin",
    window_size=7,
    drop_path_rate=0.3,
    gate=dict(type="EntropyGate", threshold=0.1, use_sigmoid=True),
)
