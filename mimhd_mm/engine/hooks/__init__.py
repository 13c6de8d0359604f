"""Hooks."""
from ..resume.exact_resume_hook import ExactResumeHook
from ..resume.interrupt_hook import INTERRUPTED_STATUS, InterruptHook
from ..resume.safe_checkpoint_hook import SafeCheckpointHook
from .compile_hook import CompileHook
from .head_routing_hook import HeadRoutingHook
from .head_weight_hook import HeadWeightHook
from .image_hooks import AttentionHook, ReconstructionHook
from .knn_probe_hook import KNNProbeHook
from .non_finite_hook import NonFiniteHook
from .teacher_file_hook import TeacherFileHook

__all__ = ['AttentionHook', 'CompileHook', 'ExactResumeHook', 'HeadRoutingHook', 'HeadWeightHook',
           'INTERRUPTED_STATUS', 'InterruptHook', 'KNNProbeHook', 'NonFiniteHook', 'ReconstructionHook',
           'SafeCheckpointHook', 'TeacherFileHook']
