"""How long a run takes and what it needs, from a few measured steps: ``tools/plan.py``."""
import pytest
import torch
from mmengine.config import Config

from lab.speed import variants
from mimhd_mm.errors import UserInputError
from mimhd_mm.measuring import planning, stand_ins
from mimhd_mm.measuring.planning import Cost, PlannedRun
from mimhd_mm.measuring.timing import Step

CPU = torch.device('cpu')
RUN = PlannedRun(batch_size=512, global_batch=4096, lr=1.5e-3, images=1_281_167, epochs=100)


def test_plan_by_hand():
    cost = Cost(batch_size=64, iteration=0.25, update=0.1, fixed_bytes=10 ** 9, image_bytes=1e8)
    plan = planning.make_plan(RUN, cost, gpus=2, batch_size=128)
    assert plan.accumulate == 16  # 4096 / (2 * 128)
    assert plan.lr == pytest.approx(1.5e-3)
    assert plan.unaccumulated_lr == pytest.approx(1.5e-3 / 16)
    iterations = 100 * 5004  # 1,281,167 / 256, rounded down
    assert plan.hours == pytest.approx((iterations * 0.5 + iterations / 16 * 0.1) / 3600)
    assert plan.bytes == pytest.approx(10 ** 9 + 128 * 1e8)


def test_rate_follows_what_cannot_be_accumulated_exactly():
    cost = Cost(64, 0.25, 0.1, 10 ** 9, 1e8)
    plan = planning.make_plan(RUN, cost, gpus=3, batch_size=512)
    assert plan.accumulate == 3  # 4096 / 1536 = 2.67
    assert plan.lr == pytest.approx(1.5e-3 * 4608 / 4096)
    assert planning.make_plan(RUN, cost, gpus=16, batch_size=512).lr == pytest.approx(3e-3)


def test_largest_batch():
    cost = Cost(64, 0.25, 0.1, fixed_bytes=10 ** 9, image_bytes=1e8)
    assert planning.largest_batch(cost, 10e9, 512) == 64  # (9 - 1) / 0.1 = 80
    assert planning.largest_batch(cost, 100e9, 500) == 500
    with pytest.raises(UserInputError, match='One image needs 1.2 GB'):
        planning.largest_batch(cost, 1.2e9, 512)


def test_run_of_a_config():
    cfg = Config(dict(
        train_dataloader=dict(batch_size=512, dataset=dict(type='ImageNet')), train_cfg=dict(max_epochs=100),
        auto_scale_lr=dict(base_batch_size=4096), optim_wrapper=dict(optimizer=dict(lr=1.5e-3))))
    assert planning.describe_run(cfg, None) == RUN
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1000)
    assert planning.describe_run(cfg, 4096).epochs == 1000
    cfg.train_dataloader.dataset.type = 'mmpretrain.CustomDataset'
    with pytest.raises(UserInputError, match='--epoch-images'):
        planning.describe_run(cfg, None)


def test_command_line_of_a_plan():
    plan = planning.Plan(gpus=2, batch_size=128, accumulate=16, lr=1.5e-3, unaccumulated_lr=1e-4, hours=1., bytes=1.)
    assert planning.command_line('c.py', plan, ["model.head.pairs=['qk', 'vv']"]) == (
        """bash tools/dist_train.sh c.py 2 --cfg-options 'model.head.pairs=['"'"'qk'"'"', '"'"'vv'"'"']' """
        'train_dataloader.batch_size=128 optim_wrapper.accumulative_counts=16 optim_wrapper.optimizer.lr=0.0015')
    assert planning.command_line('c.py', plan._replace(gpus=1), switches=['--amp']).startswith(
        'python tools/train.py c.py --amp --cfg-options train_dataloader.batch_size=128 ')


def test_memory_of_a_step_grows_with_images():
    model, cfg = variants.build_variant('mimhd', 'micro', img_size=32)
    optimiser = stand_ins.build_optimiser(cfg, model, CPU, 'float32')
    found = []
    for batch in (2, 4):
        images = stand_ins.random_images(cfg, batch, CPU)
        step = Step(model, optimiser, lambda: dict(inputs=images), CPU)
        step()
        found.append(planning.memory_of(step, batch, CPU))
    assert found[0][0] == found[1][0] > 4 * sum(x.numel() for x in model.parameters())
    assert found[0][1] == pytest.approx(found[1][1], rel=0.1)
