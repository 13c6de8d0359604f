"""What of the protocol is done, by the files of results, and how long the rest will take."""
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from .protocol import Protocol, ProtocolRow
from .runs import chosen_tables, read_runs
from .training import settings_key

#: of a training with E passes and of an evaluation, as long as nothing is measured
FIRST_GUESS = 3 * 60., 60.


def listing(protocol: Protocol, tables: Sequence[str], docs: Path, only: str = '', seeds: Sequence[int] | None = None
            ) -> str:
    """One line a row; rows of equal settings count once in the sum.

    Args:
        protocol (Protocol): Its rows.
        tables (sequence[str]): Names; none are all.
        docs (Path): Folder of the results.
        only (str): A regular expression that row names contain. Defaults to all.
        seeds (sequence[int], optional): In place of the protocol's. Defaults to None.
    """
    results = {(run['key'], run['seed']): run for table in protocol.tables
               for row in read_runs(docs / f'{table}.json').values() for run in row}
    lines, missing = [], {}
    for table in chosen_tables(protocol, tables):
        lines.append(f'{table.name}: {table.title}')
        for row in (row for row in table.rows if re.search(only, row.name)):
            key = settings_key(row, protocol.settings)
            wanted = seeds if seeds is not None and row.kind == 'student' else row.seeds
            done = [seed for seed in wanted if (key, seed) in results]
            left = [seed for seed in wanted if seed not in done]
            seconds = expected(row, key, list(results.values()), protocol.settings.epoch)
            missing.update({(key, seed): seconds for seed in left})
            lines.append(f'  {row.name:<66} {row.passes:>6} passes   seeds done {text(done):<10} '
                         f'to do {text(left):<10} {seconds / 60:.1f} min each')
    hours = sum(missing.values()) / 3600
    return '\n'.join([*lines, f'{len(missing)} runs to do, about {hours:.1f} hours on one thread'])


def text(seeds: Sequence[int]) -> str:
    """Numbers with spaces, or a dash."""
    return ' '.join(map(str, seeds)) or '–'


def expected(row: ProtocolRow, key: str, results: list[dict], epoch: int) -> float:
    """Seconds of one run: those of the row's other seeds, else what all runs took a pass and for their evaluation."""
    own = [run['seconds'] + run['evaluation_seconds'] for run in results if run['key'] == key]
    if own:
        return statistics.median(own)
    trained = [run for run in results if run['steps']]
    rate = statistics.median(run['seconds'] / run['passes'] for run in trained) if trained else FIRST_GUESS[0] / epoch
    evaluation = statistics.median(run['evaluation_seconds'] for run in trained) if trained else FIRST_GUESS[1]
    return row.passes * rate + evaluation
