"""Evaluation of frozen networks: k-NN, linear classification and segmentation in closed form, read-out of relations."""
from .block_features import block_features
from .knn import extract_features, knn_accuracy
from .knn_probe import KNNProbe
from .patch_probe import linear_miou
from .read_out import read_out_kl
from .ridge import ridge_accuracy

__all__ = ['KNNProbe', 'block_features', 'extract_features', 'knn_accuracy', 'linear_miou', 'read_out_kl',
           'ridge_accuracy']
