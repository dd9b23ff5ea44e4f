_base_ = "./default.py"
log_processor = dict(by_epoch=True)
# the segmentation visualizer paints label maps
visualizer = dict(_delete_=True, type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])
tta_model = None
