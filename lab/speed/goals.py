"""What the measurements of docs/performance.md are to show, each read from the kept figures of one of them."""
import statistics
from collections.abc import Callable
from typing import NamedTuple

#: of the figures of a measurement, as they are kept: the number that is compared; None where it is not among them
Reading = Callable[[dict], float | None]


class Goal(NamedTuple):
    """A bound on a number.

    Attributes:
        what (str): What the number is.
        name (str): The measurement that has it, of lab/speed/performance.yml.
        bound (float): What is asked.
        reading (callable): The number.
        at_least (bool): Whether the bound is a lower one. Defaults to False.
    """
    what: str
    name: str
    bound: float
    reading: Reading
    at_least: bool = False

    def reached(self, number: float) -> bool:
        """Whether a number is within the bound."""
        return number >= self.bound if self.at_least else number <= self.bound


def of_variant(figures: dict, variant: str) -> dict | None:
    """The figures of one variant, or None."""
    return next((one for one in figures['results'] if one['variant'] == variant), None)


def flops(first: str, second: str) -> Reading:
    """FLOPs of one variant's step over another's."""
    def read(figures: dict) -> float | None:
        one, other = of_variant(figures, first), of_variant(figures, second)
        return one['flops'] / other['flops'] if one and other else None
    return read


def seconds(first: str, second: str) -> Reading:
    """Time of one variant's step over another's: the median of the ratios of each round."""
    def read(figures: dict) -> float | None:
        one, other = of_variant(figures, first), of_variant(figures, second)
        if not one or not other:
            return None
        return statistics.median(sum(a.values()) / sum(b.values()) for a, b in zip(one['rounds'], other['rounds']))
    return read


def above_count(first: str, second: str) -> Reading:
    """What the ratio of times is larger by than the ratio of FLOPs."""
    def read(figures: dict) -> float | None:
        time, count = seconds(first, second)(figures), flops(first, second)(figures)
        return None if time is None else time - count
    return read


def share(variant: str) -> Reading:
    """FLOP/s of a step over those of its own matmuls run alone."""
    def read(figures: dict) -> float | None:
        one = of_variant(figures, variant)
        return one and one['share_of_matmul_rate']
    return read


def of_relations(key: str, first: str, second: str) -> Reading:
    """Median time (``'seconds'``) or memory (``'peak_bytes'``) of one form over the other's, where B is 8, M2 12, M1 16
    and N 196."""
    def read(figures: dict) -> float | None:
        for one in figures['results']:
            if (one['batch'], one['student_heads'], one['teacher_heads'], one['tokens']) == (8, 12, 16, 196):
                values = [one[key][form]['median'] if key == 'seconds' else one[key][form] for form in (first, second)]
                return values[0] / values[1]
        return None
    return read


def of_hooks(*kinds: str) -> Reading:
    """Share of the training's time that hooks of these kinds took."""
    def read(figures: dict) -> float:
        return sum(one['seconds'] for one in figures['hooks'] if one['kind'] in kinds) / figures['training_seconds']
    return read


def step_goals(name: str, student: str) -> list[Goal]:
    """Those of a step on a CPU."""
    return [
        Goal(f"{student}: FLOPs of MIM-HD over TinyMIM's", name, 1.25, flops('mimhd', 'tinymim')),
        Goal(f"{student}: time of MIM-HD over TinyMIM's", name, 1.25, seconds('mimhd', 'tinymim')),
        Goal(f'{student}: the same, above the ratio of FLOPs', name, 0.03, above_count('mimhd', 'tinymim')),
        Goal(f"{student}: time with `rec_fraction=0.5` over TinyMIM's", name, 1.15, seconds('mimhd-half', 'tinymim')),
        Goal(f'{student}: time of a literal MIM-HD over ours', name, 1.3, seconds('literal', 'mimhd'), at_least=True),
        Goal(f'{student}: time in bf16 over float32', name, 0.7, seconds('mimhd-bf16', 'mimhd')),
        Goal(f"{student}: share of plain matmuls' rate", name, 0.7, share('mimhd'), at_least=True)]


def gpu_goals(size: str, student: str) -> list[Goal]:
    """Those of a step on a GPU."""
    goals = []
    for name, how in ((f'gpu-{size}', 'GPU'), (f'gpu-{size}-compiled', 'GPU, compiled')):
        goals.append(Goal(f"{student}, {how}: time of MIM-HD over TinyMIM's as its public code has it", name,
                          0.8 if 'compiled' in how else 1., seconds('mimhd', 'public-tinymim')))
        if size == 'base':
            goals.append(Goal(f"{student}, {how}: share of plain matmuls' rate", name, 0.45, share('mimhd'), True))
    return goals


GOALS: list[Goal] = [
    *step_goals('base', 'ViT-B'), *step_goals('small', 'ViT-S'),
    Goal('three students from one teacher: time over that of three runs', 'students', 0.75,
         seconds('together', 'apart')),
    Goal('distances of heads: how many times faster than broadcast', 'relations', 6.,
         of_relations('seconds', 'broadcast', 'matmul'), at_least=True),
    Goal('distances of heads: memory over that of broadcast', 'relations', 0.2,
         of_relations('peak_bytes', 'matmul', 'broadcast')),
    Goal('hooks that draw: share of the training', 'hooks', 0.01, of_hooks('draws')),
    Goal('hooks that draw or probe: share of the training', 'hooks', 0.01, of_hooks('draws', 'probes')),
    *gpu_goals('base', 'ViT-B'), *gpu_goals('small', 'ViT-S'), *gpu_goals('tiny', 'ViT-Ti')]


def table_rows(kept: dict[str, dict]) -> list[dict]:
    """A row a goal, from the kept figures by name; four digits that count, so that a near miss can be seen."""
    rows = []
    for goal in GOALS:
        number = goal.reading(kept[goal.name]) if goal.name in kept else None
        rows.append({
            'goal': goal.what, 'asked': f'at {"least" if goal.at_least else "most"} {goal.bound:g}',
            'measured': 'not run' if number is None else f'{number:.4g}',
            'reached': '–' if number is None else 'yes' if goal.reached(number) else 'no', 'in': f'`{goal.name}`'})
    return rows
