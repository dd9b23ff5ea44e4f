# Common to the experiment trackers: overlays of some validation images go there, too.
_base_ = "./default.py"
custom_hooks = [dict(type="SegVisualizationHook", draw=True, interval=20)]
