"""Evaluation of frozen networks: k-NN, and linear classification and segmentation in closed form."""
from .block_features import block_features
from .knn import extract_features, knn_accuracy
from .knn_probe import KNNProbe
from .patch_probe import linear_miou
from .ridge import ridge_accuracy

__all__ = ['KNNProbe', 'block_features', 'extract_features', 'knn_accuracy', 'linear_miou', 'ridge_accuracy']
