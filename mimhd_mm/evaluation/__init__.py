"""Evaluation without training: k-NN on frozen features."""
from .knn import extract_features, knn_accuracy
from .knn_probe import KNNProbe

__all__ = ['KNNProbe', 'extract_features', 'knn_accuracy']
