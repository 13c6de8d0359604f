"""``MultiStudentRunner``: several processes train several students."""

from mmengine.model import MMSeparateDistributedDataParallel
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn

from ..models import MultiStudent
from ..registry import MODEL_WRAPPERS, RUNNERS
from .resume.runner import ResumableRunner


@MODEL_WRAPPERS.register_module()
class StudentsInParallel(MMSeparateDistributedDataParallel):
    """A ``MultiStudent`` whose processes exchange gradients student by student, each as in a run of its own.

    Args:
        module (MultiStudent): The model; its students stay as they are and are wrapped beside it.
        **kwargs: Arguments of ``MMSeparateDistributedDataParallel``.
    """

    def __init__(self, module: MultiStudent, **kwargs) -> None:
        wrapped = nn.ModuleDict(dict(module.students))
        super().__init__(wrapped, **kwargs)  # wraps each part of it
        self.module, self.wrapped = module, wrapped

    def train_step(self, data: dict, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """As of the model."""
        return self.module.train_step(data, optim_wrapper, self.wrapped)


@RUNNERS.register_module()
class MultiStudentRunner(ResumableRunner):
    """Wraps the students of a ``MultiStudent`` one by one where there are several processes.

    mmengine wraps a model as a whole, which asks for one backward pass and one update a step. Arguments are the
    parent's; of ``model_wrapper_cfg`` all but the type holds. In a config it is
    ``runner_type='mimhd_mm.MultiStudentRunner'``.
    """

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """The model on its device, wrapped where there are several processes."""
        if self.distributed and isinstance(model, MultiStudent):
            unused = self.cfg.get('find_unused_parameters', False)
            model_wrapper_cfg = dict(dict(find_unused_parameters=unused), **(model_wrapper_cfg or {}))
            model_wrapper_cfg['type'] = 'mimhd_mm.StudentsInParallel'
        return super().wrap_model(model_wrapper_cfg, model)
