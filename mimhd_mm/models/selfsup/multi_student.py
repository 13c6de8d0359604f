"""``MultiStudent``: several students distilled from one pass of their teacher."""
import copy
from typing import Any

from mmengine.model import BaseModel
from mmengine.optim import OptimWrapperDict
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ...errors import UserInputError, root_cause
from ...registry import MODELS
from ..relation import QKV
from ..views import check_fraction
from .random_streams import RandomStreams
from .relation_distiller import Images, RelationDistiller, choose_tokens, student_and_teacher_views


@MODELS.register_module()
class MultiStudent(BaseModel):
    """Students of any size that learn side by side from one teacher, which sees each batch once.

    Each is a whole ``MIMHD`` or ``TinyMIM`` but for the teacher, with an optimiser of its own (see
    ``StudentOptimWrapperConstructor``), and learns what it would learn in a run of its own with the same seed, images
    and settings: its weights start from the same numbers, and it draws its masks and dropped paths from a stream of
    its own (:class:`~mimhd_mm.models.selfsup.random_streams.RandomStreams`). In float32 on one CPU thread losses and
    weights are the same to the last bit. What the students cannot differ in are the images: where those depend on
    torch's generator in the training process (``DeviceAugmentation``), all see what the first student's run would.

    Within a step the students take turns, forward, backward and update, so that the activations of one at a time are
    in memory. In a log and a checkpoint what belongs to a student bears its name: ``tiny.loss_qk``,
    ``students.tiny.backbone.cls_token``.

    Args:
        students (dict): From a student's name to the config of a ``MIMHD`` (the default ``type``) or a ``TinyMIM``,
            without ``target_generator`` and ``data_preprocessor``.
        target_generator (dict): The teacher, a ``MAETeacher``, of all of them.
        data_preprocessor (dict, optional): As of ``BaseSelfSupervisor``. Defaults to None.
        token_fraction (float): Share of the patches that the students see, as of ``RelationDistiller``; all of them see
            the same patches. Defaults to 1.0, all patches.

    Raises:
        UserInputError: If there is no student, a name cannot be used, or a student is of another kind, brings a teacher
            or images of its own, or does not fit the teacher.
    """

    students: Any  # ModuleDict, a RelationDistiller by name
    target_generator: Any
    OF_ALL = ('target_generator', 'data_preprocessor', 'token_fraction')

    def __init__(self, students: dict[str, dict], target_generator: dict,
                 data_preprocessor: dict | nn.Module | None = None, token_fraction: float = 1.0) -> None:
        check_fraction(token_fraction)
        if isinstance(data_preprocessor, dict) or data_preprocessor is None:
            data_preprocessor = MODELS.build(dict(dict(type='SelfSupDataPreprocessor'), **(data_preprocessor or {})))
        super().__init__(data_preprocessor)
        self.check_students(students)
        self.token_fraction = token_fraction
        self.streams = RandomStreams(list(students))
        self.students = nn.ModuleDict()
        self.target_generator = None
        for name, cfg in students.items():
            student = self.build_student(name, cfg, target_generator)
            # every run of one student draws a random start for its teacher, so all are built and one is kept
            teacher, student.target_generator = student.target_generator, None
            self.target_generator = self.target_generator or teacher
            self.students[name] = student

    @classmethod
    def check_students(cls, students: dict[str, dict]) -> None:
        """See that names and kinds of students can be used, and that they share what has to be shared.

        Raises:
            UserInputError: If not.
        """
        if not students:
            raise UserInputError('MultiStudent has no student; give `students`, a config by name.')
        for name, cfg in students.items():
            if not str(name).isidentifier() or hasattr(nn.ModuleDict, name):
                raise UserInputError(f'A student cannot be called {name!r}; take a word of letters, digits and '
                                     f'underscores such as tiny.')
            for key in set(cls.OF_ALL) & set(cfg):
                raise UserInputError(f'Student {name!r} has a {key} of its own, but all students see the same images '
                                     f'and learn from the same block of one teacher; set model.{key} for all of them.')
            kind = cfg.get('type', 'MIMHD')
            kind = MODELS.get(kind) if isinstance(kind, str) else kind
            if kind is None or not issubclass(kind, RelationDistiller):
                raise UserInputError(f'Student {name!r} is a MIMHD or a TinyMIM, not {cfg["type"]!r}.')

    def build_student(self, name: str, cfg: dict, target_generator: dict) -> RelationDistiller:
        """A student and a teacher, as a run of its own builds them.

        Raises:
            UserInputError: If they do not fit, with the student's name.
        """
        cfg = dict(dict(type='MIMHD'), **copy.deepcopy(cfg), target_generator=copy.deepcopy(target_generator),
                   token_fraction=self.token_fraction)
        try:
            with self.streams.of(name):
                return MODELS.build(cfg)
        except Exception as error:
            problem = root_cause(error)
            if not isinstance(problem, UserInputError):
                raise
        raise UserInputError(f'Student {name!r}: {problem}')  # outside `except`, so that it has no cause

    def init_weights(self) -> None:
        """Initialise the students, then load the teacher once, last, so that nothing writes over it."""
        for name, student in self.students.items():
            with self.streams.of(name):
                student.init_weights()
        file = self.target_generator.load(need_decoder=any(student.uses_decoder for student in self.students.values()))
        for student in self.students.values():
            student.take_from(file, self.target_generator.block)

    def teach(self, inputs: Images,
              data_samples: list[DataSample] | None = None) -> tuple[Tensor, QKV, Tensor | None]:
        """The teacher's pass.

        Args:
            inputs (Tensor | Sequence[Tensor]): (B, 3, H, W), normalised images; or two of them, the students' view and
                the teacher's.
            data_samples (list, optional): Where they come from.

        Returns:
            tuple: The images, (B, 3, H, W); the teacher's q, k, v, each (B, M1, 1 + n, d1), no gradient; the patches
            that the students see, (B, n), or None for all.
        """
        images, teacher_images = student_and_teacher_views(inputs)  # each (B, 3, H, W)
        seen = choose_tokens(self, images, data_samples)  # (B, n), or None
        return images, self.target_generator(teacher_images, seen, data_samples), seen

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict,
                   students: dict[str, nn.Module] | None = None) -> dict[str, Tensor]:
        """One batch for the teacher and for each student.

        Args:
            data (dict): From the loader.
            optim_wrapper (OptimWrapperDict): One by student.
            students (dict, optional): What stands for the students, wrapped for several processes. None is themselves.

        Returns:
            dict: For the log: each student's losses and their sum, and ``loss``, the sum of these.
        """
        with self.precision(optim_wrapper):
            data = self.data_preprocessor(data, True)
            taught = self.teach(data['inputs'], data.get('data_samples'))  # (B, 3, H, W), QKV, (B, n)
        return self.learn(*taught, optim_wrapper, students or self.students)

    def precision(self, optim_wrapper: OptimWrapperDict):
        """What the teacher runs in: the precision of the students, which is the same in all.

        Raises:
            UserInputError: If there is one optimiser for all.
        """
        if not isinstance(optim_wrapper, OptimWrapperDict):
            raise UserInputError("Each student of a MultiStudent has an optimiser of its own; set "
                                 "optim_wrapper.constructor='StudentOptimWrapperConstructor'.")
        name, student = next(iter(self.students.items()))
        return optim_wrapper[name].optim_context(student)

    def learn(self, images: Tensor, teacher: QKV, seen: Tensor | None, optim_wrapper: OptimWrapperDict,
              students: dict[str, nn.Module]) -> dict[str, Tensor]:
        """The students' turns, with what :meth:`teach` returns; other arguments as of :meth:`train_step`."""
        log = {}
        for name, student in students.items():
            with self.streams.of(name):
                with optim_wrapper[name].optim_context(student):
                    losses = student(images, teacher=teacher, seen=seen, mode='loss')
                loss, parts = self.parse_losses(losses)
                optim_wrapper[name].update_params(loss)
            log.update(named(name, parts))
        losses = [log[f'{name}.loss'].detach() for name in students]
        return dict(loss=sum(losses[1:], losses[0]), **log)

    def forward(self, inputs: Images, data_samples: list[DataSample] | None = None, mode: str = 'tensor'):
        """As of ``BaseSelfSupervisor``: ``'loss'`` gives losses, ``'tensor'`` features, both with students' names."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'tensor':
            return self.extract_feat(inputs)
        raise RuntimeError(f'Invalid mode "{mode}".')

    def extract_feat(self, inputs: Images) -> dict[str, tuple[Tensor, ...]]:
        """Each student's features of images (B, 3, H, W)."""
        return {name: student.extract_feat(inputs) for name, student in self.students.items()}

    def loss(self, inputs: Images, data_samples: list[DataSample] | None = None, **kwargs) -> dict[str, Tensor]:
        """All students' losses, by their names, of one pass of the teacher; see ``RelationDistiller.loss``."""
        images, teacher, seen = self.teach(inputs, data_samples)  # (B, 3, H, W), each (B, M1, 1 + n, d1), (B, n)
        losses = {}
        for name, student in self.students.items():
            with self.streams.of(name):
                losses.update(named(name, student.distil(images, teacher, seen)))
        return losses


def named(name: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values by ``name.key``."""
    return {f'{name}.{key}': value for key, value in values.items()}


def students_of(model: nn.Module) -> dict[str, nn.Module]:
    """What learns in a model, by what its figures are to begin with in a log: ``'tiny.'``; ``''`` where it is alone."""
    if isinstance(model, MultiStudent):
        return {f'{name}.': student for name, student in model.students.items()}
    return {'': model}
