"""Steps side by side: several students of one teacher in one step, and several steps in turn."""

import torch

from mimhd_mm.measuring.timing import WATCHED, Step


class StudentsStep(Step):
    """The step of a ``MultiStudent``: the teacher once, then the students' turns. Arguments are the parent's.

    Without :meth:`watch`, all of it counts as 'decoder'.
    """

    def watch(self) -> None:
        """Time the parts of every student, and of its optimiser."""
        self._watch(self.model.target_generator, 'forward', 'teacher')
        for name, student in self.model.students.items():
            for section in ('student', 'relations'):
                part, method = WATCHED[section]
                self._watch(getattr(student, part), method, section)
            wrapper = self.optim_wrapper[name]
            for method, section in dict(backward='backward', step='optimiser', zero_grad='optimiser').items():
                self._watch(wrapper, method, section)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The students'."""
        return [wrapper.optimizer for wrapper in self.optim_wrapper.values()]

    def losses(self, data: dict) -> torch.Tensor:
        """The sum of all students' losses."""
        with self.model.precision(self.optim_wrapper):
            return self.model.parse_losses(self.model(**data, mode='loss'))[0]

    def train(self, data: dict) -> None:
        """As ``MultiStudent.train_step``, but that images come preprocessed."""
        with self.model.precision(self.optim_wrapper):
            images, teacher, seen = self.model.teach(data['inputs'])  # (B, 3, H, W), each (B, M1, 1 + n, d1), (B, n)
        self.model.learn(images, teacher, seen, self.optim_wrapper, self.model.students)


def interleave(steps: dict[str, Step], repeats: int, warmup: int) -> dict[str, list[dict[str, float]]]:
    """Run all steps in turn, A B C A B C, so that a machine's changing load falls on all of them.

    Args:
        steps (dict): By name.
        repeats (int): Rounds that count.
        warmup (int): Rounds before them that do not.

    Returns:
        dict: For each name the seconds by section of each round that counts.
    """
    rounds = [{name: step() for name, step in steps.items()} for _ in range(warmup + repeats)][warmup:]
    return {name: [one[name] for one in rounds] for name in steps}
