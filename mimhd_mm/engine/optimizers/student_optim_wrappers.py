"""Optimisers of several students: ``StudentOptimWrapperConstructor`` and what it builds."""
import copy
import math

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_CONSTRUCTORS
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ...errors import UserInputError
from ...models import MultiStudent
from ...registry import OPTIM_WRAPPER_CONSTRUCTORS
from ..multi_student_runner import StudentsInParallel


class StudentOptimWrapperDict(OptimWrapperDict):
    """One optimiser wrapper for each student; each counts iterations for gradient accumulation."""

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Set the first and last iteration of every wrapper, which mmengine's class does not do."""
        for wrapper in self.values():
            wrapper.initialize_count_status(model, init_counts, max_counts)

    @property
    def _inner_count(self) -> int:
        """Number of iterations, under the name that a single wrapper has."""
        return next(iter(self.values()))._inner_count

    @property
    def _accumulative_counts(self) -> int:
        """Iterations after which no student holds accumulated gradients, under the name that a single wrapper has."""
        return math.lcm(*(wrapper._accumulative_counts for wrapper in self.values()))

    def load_state_dict(self, state_dict: dict) -> None:
        """Load the states of the same students.

        Raises:
            UserInputError: If the checkpoint has other students.
        """
        if set(state_dict) != set(self.keys()):
            raise UserInputError(
                f'Cannot resume: the checkpoint is of the students {", ".join(state_dict)}, the config of '
                f'{", ".join(self.keys())}; use the same students, or start from its weights with load_from.')
        super().load_state_dict(state_dict)


@ROOT_CONSTRUCTORS.register_module()  # visible from every scope
@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class StudentOptimWrapperConstructor:
    """One optimiser wrapper for each student of a ``MultiStudent``, with the same settings or its own.

    The config is that of a run with one student and applies to all students. ``students`` overrides it for some::

        optim_wrapper = dict(
            constructor='StudentOptimWrapperConstructor', type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1.5e-3), clip_grad=dict(max_norm=3.0),
            students=dict(tiny=dict(optimizer=dict(lr=3e-3))))

    ``param_scheduler`` may be one list, for each of them, or a dict of lists by student. ``auto_scale_lr`` scales all.

    Args:
        optim_wrapper_cfg (dict): Config of an optimiser wrapper; and ``students``, changes by name, in which
            ``constructor`` and ``paramwise_cfg`` may stand, too.
        paramwise_cfg (dict, optional): As of mmengine's constructor, with names of parameters as a run of one student
            has them. Defaults to None.

    Raises:
        UserInputError: If the model is not a ``MultiStudent``, a student is unknown, several processes are not run by
            ``MultiStudentRunner``, or the students need different precisions of the teacher's one pass.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.shared = dict(optim_wrapper_cfg)
        self.changes = dict(self.shared.pop('students', None) or {})
        if paramwise_cfg is not None:
            self.shared['paramwise_cfg'] = paramwise_cfg

    def __call__(self, model: nn.Module) -> StudentOptimWrapperDict:
        """Build the wrappers of a model, which may be wrapped for several processes."""
        if isinstance(model, DistributedDataParallel) and not isinstance(model, StudentsInParallel):
            raise UserInputError("Several processes train a MultiStudent with a Runner of its own; put "
                                 "runner_type='mimhd_mm.MultiStudentRunner' into the config.")
        model = model.module if is_model_wrapper(model) else model
        if not isinstance(model, MultiStudent):
            raise UserInputError(f'StudentOptimWrapperConstructor builds optimisers for a MultiStudent, not for a '
                                 f'{type(model).__name__}; leave optim_wrapper.constructor out.')
        unknown = sorted(set(self.changes) - set(model.students))
        if unknown:
            raise UserInputError(f'optim_wrapper.students names {unknown[0]!r}; the students are '
                                 f'{", ".join(model.students)}.')
        wrappers = {}
        for name, student in model.students.items():
            wrappers[name] = build_optim_wrapper(student, self.settings_of(name))
            if wrappers[name].clip_grad_kwargs:
                wrappers[name].grad_name = f'{name}.{wrappers[name].grad_name}'  # its name in the log
        kinds = {name: (type(wrapper).__name__, getattr(wrapper, 'cast_dtype', None))
                 for name, wrapper in wrappers.items()}
        first, *others = kinds
        odd = [name for name in others if kinds[name] != kinds[first]]
        if odd and model.target_generator.dtype is None:
            raise UserInputError(
                f'Students {first!r} and {odd[0]!r} have an optim_wrapper of other type or dtype '
                f'({kinds[first][0]}, {kinds[odd[0]][0]}), but their teacher runs once; give them the same, or the '
                f'teacher a precision of its own by model.target_generator.dtype.')
        return StudentOptimWrapperDict(**wrappers)

    def settings_of(self, name: str) -> dict:
        """The shared settings with the changes for one student."""
        cfg = Config(dict(settings=copy.deepcopy(self.shared)))
        cfg.merge_from_dict(dict(settings=copy.deepcopy(self.changes.get(name, {}))))
        return cfg.settings
