"""Hooks, optimiser wrappers and what turns a command line into a Runner."""
from .hooks import (
                    AttentionHook,
                    ExactResumeHook,
                    HeadRoutingHook,
                    HeadWeightHook,
                    InterruptHook,
                    KNNProbeHook,
                    NonFiniteHook,
                    ReconstructionHook,
                    SafeCheckpointHook,
                    TeacherFileHook,
)
from .multi_student_runner import MultiStudentRunner
from .optimizers import BackboneLayerDecayConstructor, CPUAmpOptimWrapper, StudentOptimWrapperConstructor
from .resume.loops import ResumableEpochBasedTrainLoop, ResumableIterBasedTrainLoop
from .resume.runner import ResumableRunner

__all__ = ['AttentionHook', 'BackboneLayerDecayConstructor', 'CPUAmpOptimWrapper', 'ExactResumeHook', 'HeadRoutingHook',
           'HeadWeightHook', 'InterruptHook', 'KNNProbeHook', 'MultiStudentRunner', 'NonFiniteHook',
           'ReconstructionHook', 'ResumableEpochBasedTrainLoop', 'ResumableIterBasedTrainLoop', 'ResumableRunner',
           'SafeCheckpointHook', 'StudentOptimWrapperConstructor', 'TeacherFileHook']
