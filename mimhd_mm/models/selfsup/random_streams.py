"""Random numbers for several students, each as in a run of its own."""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

States = dict[str, Tensor]

#: numbers of 32 bits that are counted when others drew from the CPU's generator; a data loader draws two an epoch
MOST_WORDS = 64


class RandomStreams:
    """One stream of torch's random numbers a name, all of which begin where torch's generators stand now.

    In a run of one student whatever draws from torch's generators between two steps, such as the data loader at the
    start of an epoch, shares them with the student. So here they are the first student's stream between steps, and
    what others drew from it meanwhile each other stream is moved on by, too. Where somebody seeded the generators anew
    (or drew more than can be counted, :data:`MOST_WORDS` on a CPU) all streams go on from there; a seed that puts the
    generators where they are already is not noticed.

    Only the CPU's generator and that of this process's GPU are looked after. Nothing is saved with a checkpoint: a
    resumed run draws as a resumed run of one student does.

    Args:
        names (Sequence[str]): Of the streams.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.states: dict[str, States] = {name: current_states() for name in names}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Draw from one stream inside."""
        self._catch_up(current_states())
        set_states(self.states[name])
        try:
            yield
        finally:
            self.states[name] = current_states()
            set_states(self._first)

    @property
    def _first(self) -> States:
        return next(iter(self.states.values()))

    def _catch_up(self, found: States) -> None:
        """Move all streams on by what others took from the first."""
        for device, left in self._first.items():
            if torch.equal(left, found[device]):
                continue
            count, move = (count_words, move_on) if device == 'cpu' else (count_offset, move_offset)
            number = count(left, found[device])
            for states in self.states.values():
                states[device] = found[device] if number is None else move(states[device], number)


def current_states() -> States:
    """States of torch's generators by kind of device."""
    states = dict(cpu=torch.get_rng_state())
    if torch.cuda.is_available():
        states['cuda'] = torch.cuda.get_rng_state()  # kept on the CPU: nothing waits for the GPU
    return states


def set_states(states: States) -> None:
    """The inverse of :func:`current_states`."""
    torch.set_rng_state(states['cpu'])
    if 'cuda' in states:
        torch.cuda.set_rng_state(states['cuda'])


def count_words(before: Tensor, after: Tensor) -> int | None:
    """How many numbers of 32 bits take the CPU's generator from one state to another; None beyond MOST_WORDS."""
    generators = [torch.Generator(), torch.Generator()]
    for generator, state in zip(generators, (before, after)):
        generator.set_state(state)
    if generators[0].initial_seed() != generators[1].initial_seed():
        return None
    for number in range(1, MOST_WORDS + 1):
        draw(generators[0], 1)
        if torch.equal(generators[0].get_state(), after):
            return number
    return None


def move_on(state: Tensor, number: int) -> Tensor:
    """The state of the CPU's generator after ``number`` further numbers of 32 bits."""
    generator = torch.Generator()
    generator.set_state(state)
    draw(generator, number)
    return generator.get_state()


def draw(generator: torch.Generator, number: int) -> None:
    """Take numbers of 32 bits from a generator of the CPU."""
    torch.empty(number, dtype=torch.int32).random_(generator=generator)


def count_offset(before: Tensor, after: Tensor) -> int | None:
    """How far a GPU's generator went from one state, (seed, offset), to another; None where it was seeded anew."""
    (seed, start), (other_seed, end) = (state.view(torch.int64).tolist() for state in (before, after))
    return end - start if seed == other_seed and end > start else None


def move_offset(state: Tensor, number: int) -> Tensor:
    """The state of a GPU's generator ``number`` further on."""
    return (state.view(torch.int64) + torch.tensor([0, number])).view(torch.uint8)
