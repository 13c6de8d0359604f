"""Targets of the teacher, written once for every setting that needs others, and read by all runs."""
import contextlib
import copy
import fcntl
import json
import time
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from mimhd_mm.engine.teacher_caching import CacheWriter
from mimhd_mm.weights.writing import write_whole

from .identity import file_hash, short_hash
from .images import BATCH


@contextlib.contextmanager
def waited_for(path: Path) -> Iterator[None]:
    """Inside, this process alone has the lock; others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def with_cache(cfg: Config, teacher: Path, folder: Path) -> dict:
    """Change a config so that its targets come from a file, which is made if it is not there.

    Runs share a file where teacher, block, images, views and the patches that the teacher sees are the same.

    Args:
        cfg (Config): With ``FixedViews``; one without a teacher stays as it is.
        teacher (Path): The MAE file.
        folder (Path): Where caches are.

    Returns:
        dict: ``cache_seconds`` and ``cache_cpu_seconds``, what making the file took, whoever made it; 0 without one.
    """
    generator = cfg.model.get('target_generator')
    if generator is None:
        return dict(cache_seconds=0., cache_cpu_seconds=0.)
    generator.checkpoint = str(teacher)
    fraction = cfg.model.get('token_fraction', 1.) if generator.get('token_fraction', 'same') == 'same' else 1.
    views = cfg.train_dataloader.dataset
    asked = {key: value for key, value in generator.items() if key not in ('checkpoint', 'token_fraction')}
    path = folder / f'{short_hash([file_hash(teacher), asked, views.to_dict(), fraction])}.safetensors'
    with waited_for(path.with_suffix('.lock')):
        if not path.with_suffix('.json').is_file():
            path.unlink(missing_ok=True)
            write_cache(cfg, path, fraction)
    generator.update(type='CachedTeacher', cache=str(path))
    return json.loads(path.with_suffix('.json').read_text())


def write_cache(cfg: Config, path: Path, fraction: float) -> None:
    """Run the teacher over every view, and note the time."""
    clock, cpu = time.perf_counter(), time.process_time()
    views = cfg.train_dataloader.dataset
    writer = CacheWriter(copy.deepcopy(cfg), path, views.num_views, views.get('view_seed', 0), fraction)
    print(f"  writing {writer.num_bytes / 1e9:.2f} GB of the teacher's q, k, v", flush=True)
    writer.write(BATCH)
    taken = dict(cache_seconds=round(time.perf_counter() - clock, 1),
                 cache_cpu_seconds=round(time.process_time() - cpu, 1))
    write_whole(path.with_suffix('.json'), json.dumps(taken))
