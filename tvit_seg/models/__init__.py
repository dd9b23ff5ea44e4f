"""Thinking networks by part: layers, gates, pruning, backbones, segmentors, classifiers."""
