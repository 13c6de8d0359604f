"""Relations (eq. 1)."""
import pytest
import torch

from mimhd_mm.errors import UserInputError
from mimhd_mm.models.relation import PAIRS, QKV, log_relation, relation_logits


def random_qkv(batch=2, heads=3, tokens=5, dims=4, dtype=torch.float32):
    return QKV(*torch.randn(3, batch, heads, tokens, dims, dtype=dtype))


@pytest.mark.parametrize('pair', PAIRS)
def test_rows_sum_to_one(pair):
    rows = log_relation(random_qkv(), pair).exp().sum(-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


def test_equals_the_formula_written_out():
    qkv = random_qkv(dtype=torch.float64)
    for pair, (a, b) in {'qk': (qkv.q, qkv.k), 'vv': (qkv.v, qkv.v), 'qv': (qkv.q, qkv.v)}.items():
        for image in range(2):
            for head in range(3):
                scores = a[image, head] @ b[image, head].T / 4 ** .5
                expected = torch.stack([row.exp() / row.exp().sum() for row in scores])
                torch.testing.assert_close(log_relation(qkv, pair)[image, head].exp(), expected)


def test_rows_are_queries_and_columns_are_keys():
    qkv = random_qkv()
    changed = qkv._replace(k=qkv.k.clone())
    changed.k[:, :, 0] += 5.
    before, after = relation_logits(qkv, 'qk'), relation_logits(changed, 'qk')
    assert not torch.equal(before[..., 0], after[..., 0])
    torch.testing.assert_close(before[..., 1:], after[..., 1:])


def test_float32_under_autocast_and_from_half_precision():
    qkv = random_qkv()
    expected = log_relation(qkv, 'vv')
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(log_relation(qkv, 'vv'), expected, rtol=0, atol=0)
    half = QKV(*(x.bfloat16() for x in qkv))
    assert log_relation(half, 'vv').dtype == torch.float32


def test_finite_where_softmax_then_log_is_not():
    qkv = QKV(*(1e3 * x for x in random_qkv()))
    assert torch.isfinite(log_relation(qkv, 'qk')).all()
    assert not torch.isfinite(relation_logits(qkv, 'qk').softmax(-1).log()).all()


def test_cls_token_is_the_first():
    qkv = random_qkv()
    for full, patches in zip(qkv, qkv.without_cls()):
        assert torch.equal(full[:, :, 1:], patches)


def test_unknown_pair():
    with pytest.raises(UserInputError, match="Unknown relation pair 'kv'; choose from 'qk', 'vv'"):
        relation_logits(random_qkv(), 'kv')
