"""Networks that think, part by part: layers, gates, pruning, backbones, segmentors, classifiers."""
