"""Hooks."""
from .compile_hook import CompileHook
from .exact_resume_hook import ExactResumeHook
from .head_routing_hook import HeadRoutingHook
from .head_weight_hook import HeadWeightHook
from .image_hooks import AttentionHook, ReconstructionHook
from .interrupt_hook import INTERRUPTED_STATUS, InterruptHook
from .knn_probe_hook import KNNProbeHook
from .non_finite_hook import NonFiniteHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .teacher_file_hook import TeacherFileHook

__all__ = ['AttentionHook', 'CompileHook', 'ExactResumeHook', 'HeadRoutingHook', 'HeadWeightHook', 'INTERRUPTED_STATUS', 'InterruptHook',
           'KNNProbeHook', 'NonFiniteHook', 'ReconstructionHook', 'SafeCheckpointHook', 'TeacherFileHook']
