"""What a training step costs: no waiting for the device, no attention maps, less memory by chunks, arithmetic."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from mimhd_mm.models import RelationDistillHead
from mimhd_mm.models.relation import QKV
from mimhd_mm.models.views import merge
from mimhd_mm.registry import MODELS

from .test_dual_view_decoder import plain_predictions

aten = torch.ops.aten


def tensors_of(*trees):
    return [leaf for leaf in tree_flatten(trees)[0] if isinstance(leaf, torch.Tensor)]


# ---- no waiting for the device ---------------------------------------------------------------------------------------
class NoSynchronisation(TorchDispatchMode):
    """Fails on every operator whose result the host has to know: values, and sizes that depend on values."""

    WAITS = {'_local_scalar_dense', 'nonzero', 'nonzero_static', 'masked_select', 'is_nonzero', 'equal', 'item',
             '_unique2', 'unique_dim', 'unique_consecutive', 'bincount', 'repeat_interleave'}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.overloadpacket.__name__
        by_mask = name.startswith(('index', '_index_put', '_unsafe_index')) and any(
            index.dtype in (torch.bool, torch.uint8) for index in tensors_of(args[1:2]))
        if name in self.WAITS or by_mask:
            raise AssertionError(f'{operator} makes the host wait for the device')
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize('wait', [
    lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool(x.any()), lambda x: x.nonzero()])
def test_waiting_is_noticed_in_both_directions(wait):
    x = torch.randn(4, requires_grad=True)
    with NoSynchronisation(), pytest.raises(AssertionError, match='wait'):
        wait(x)
    y = x * 2
    y.register_hook(lambda gradient: (wait(gradient + 1), None)[1])
    with NoSynchronisation(), pytest.raises(AssertionError, match='wait'):
        y.sum().backward()


@pytest.mark.parametrize('changes', [
    dict(), dict(rec_fraction=0.5), dict(rec_weight=0), dict(neck=dict(num_views=1, mask_ratio=0.75)),
    dict(head=dict(chunk_size=1)), dict(target_generator=dict(dtype='bfloat16')),
    dict(head=dict(matcher=dict(type='AttentionHeadMatcher', balance='penalty'))),
    dict(head=dict(matcher=dict(type='AttentionHeadMatcher', balance='transport'))),
    dict(head=dict(matcher=dict(type='AverageHeadMatcher')))], ids=str)
def test_a_step_does_not_wait_for_the_device(build_mimhd, changes):
    model = build_mimhd(**changes).train()
    images = torch.randn(2, 3, 32, 32)
    with NoSynchronisation():
        sum(model(images, mode='loss').values()).backward()
    assert model.backbone.cls_token.grad.abs().sum() > 0


# ---- attention maps --------------------------------------------------------------------------------------------------
class Shapes(TorchDispatchMode):
    """The shape of every tensor that an operator makes."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        self.seen.update(tuple(x.shape) for x in tensors_of(out))
        return out


def test_only_relations_are_as_large_as_all_pairs_of_tokens(build_mimhd):
    """25 patches: relations are 25 x 25, attention, whose weights nobody keeps, would be 26 x 26 or 13 x 26."""
    model = build_mimhd(backbone=dict(img_size=40), target_generator=dict(img_size=40)).train()
    with Shapes() as shapes:
        sum(model(torch.randn(2, 3, 40, 40), mode='loss').values()).backward()
    assert {shape[:2] for shape in shapes.seen if shape[-2:] == (25, 25)} >= {(2, 3), (2, 4)}
    assert not [shape for shape in shapes.seen if shape[-2:] in ((26, 26), (12, 26), (13, 26))]


# ---- memory ----------------------------------------------------------------------------------------------------------
class PeakMemory(TorchDispatchMode):
    """Bytes of all storages made or looked at while it is on: the most that are alive at once."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        for storage in (tensor.untyped_storage() for tensor in tensors_of(out)):
            self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()  # weakref crashes in torch 2.1
        self.alive = {key: kept for key, kept in self.alive.items() if not kept[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out


def test_chunks_lower_the_peak_of_memory():
    """Eight images one by one: a quarter of the memory at most, in forward and backward together."""
    peaks = {}
    for size in (None, 1):
        head = RelationDistillHead(3, 4, chunk_size=size)
        student = QKV(*torch.randn(3, 8, 3, 65, 8).requires_grad_())
        teacher = QKV(*torch.randn(3, 8, 4, 65, 8))
        with PeakMemory() as memory:
            sum(head.loss(student, teacher).values()).backward()
        peaks[size] = memory.peak
    relation = 8 * 3 * 64 * 64 * 4  # bytes of the student's Q-K relations
    assert peaks[None] > 2 * relation and peaks[1] < peaks[None] / 4


# ---- arithmetic ------------------------------------------------------------------------------------------------------
#: torch's counter does not know the attention that a CPU runs
ATTENTION = {
    getattr(aten, name): count for name, count in {
        '_scaled_dot_product_flash_attention_for_cpu':
            lambda q, k, v, *args, out_shape=None, **kwargs: sdpa_flop_count(q, k, v),
        '_scaled_dot_product_flash_attention_for_cpu_backward':
            lambda grad, q, k, v, *args, out_shape=None, **kwargs: sdpa_backward_flop_count(grad, q, k, v),
    }.items() if hasattr(aten, name)}


class PlainDecoder(torch.nn.Module):
    """A decoder that leaves nothing out, as the loss calls it."""

    def __init__(self, neck):
        super().__init__()
        self.mask_ratio, self.num_views, self.neck = neck.mask_ratio, neck.num_views, neck

    def predict_hidden(self, tokens, masks, grid, *, seen, asked):
        return merge(plain_predictions(self.neck, tokens, masks), masks)


def flops(model, batch: int) -> float:
    """Multiplications and additions of one step, forward and backward, an image."""
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        sum(model.loss(torch.empty(batch, 3, 224, 224)).values()).backward()
    return counter.get_total_flops() / batch


def test_arithmetic_of_a_step_at_full_size():
    """ViT-B student, ViT-L teacher, 224 px: shapes only, nothing is computed."""
    folder = Path(__file__).parents[2] / 'configs' / '_base_' / 'models'
    with FakeTensorMode():
        cfgs = [Config.fromfile(folder / f'{name}_vit-base-p16.py').model for name in ('tinymim', 'mimhd')]
        for cfg in cfgs:
            cfg.target_generator.dtype = None  # fake tensors cannot be cast in place, and the count is the same
        tinymim, default = map(MODELS.build, cfgs)
        mimhd = MODELS.build(dict(cfgs[1], token_fraction=1., rec_weight=0.1, rec_fraction=1., head=dict(
            cfgs[1].head, matcher=dict(type='AttentionHeadMatcher', embeddings=False))))
        base, ours, cheap = flops(tinymim, 32), flops(mimhd, 32), flops(default, 32)
        mimhd.rec_fraction = 0.5
        half = flops(mimhd, 32)
        mimhd.rec_fraction, mimhd.neck = 1., PlainDecoder(mimhd.neck)
        plain = flops(mimhd, 32)
    print(f'GFLOP an image: TinyMIM {base / 1e9:.1f}, MIM-HD plain {plain / 1e9:.1f} ({plain / base:.3f}), '
          f'MIM-HD {ours / 1e9:.1f} ({ours / base:.3f}), half reconstructed {half / 1e9:.1f} ({half / base:.3f})')
    print(f'The default: {cheap / 1e9:.1f} ({cheap / base:.3f})')
    assert base == pytest.approx(188e9, rel=0.01) and cheap / base < 0.26
    assert plain / base > 1.27 and ours / base < 1.26 and half / base < 1.15
